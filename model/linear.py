"""
A matrix that multiplies, in the precision it is stored in. The transformer cannot see which.

Everything is computed in float32: a bfloat16 matrix is widened block by block, in blocks that stay
in the processor's cache.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK_BYTES = 1 << 20  # of float32: half of a usual second-level cache


def project(x: Tensor, weight: Tensor) -> Tensor:
    """x (N,C) float32, weight (O,C) float32 or bfloat16 -> (N,O) float32: x @ weight.T."""
    if weight.dtype == torch.float32:
        return F.linear(x, weight)
    num_outputs, width = weight.shape
    out = x.new_empty(x.shape[0], num_outputs)
    rows = max(16, BLOCK_BYTES // (4 * width))
    for first in range(0, num_outputs, rows):
        block = weight[first : first + rows].float()
        torch.mm(x, block.T, out=out[:, first : first + rows])
    return out


@dataclass(frozen=True, slots=True)
class Linear:
    weight: Tensor  # (O,C), float32 or bfloat16
    bias: Tensor | None = None  # (O,), float32

    def __call__(self, x: Tensor) -> Tensor:
        """x (N,C) float32 -> (N,O) float32."""
        if self.weight.dtype == torch.float32:
            return F.linear(x, self.weight, self.bias)
        out = project(x, self.weight)
        return out if self.bias is None else out.add_(self.bias)
