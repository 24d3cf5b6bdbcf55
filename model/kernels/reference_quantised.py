"""What a quantised product does to its inputs, in plain torch."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from model.kernels.interface import InputBits
from weights.quant import BLOCK

# quantised_kernels.hpp: 16 bits are two balanced bytes, of which 127 * 256 is the largest.
WIDEST: Mapping[InputBits, float] = {8: 127.0, 16: 32512.0}
SMALLEST = 1e-30  # of a block's largest; below, all count as zero


def rounded(x: Tensor, bits: InputBits) -> Tensor:
    """x (N,C) -> (N,C), multiples of a block's scale. NaN where a block has NaN or infinity."""
    blocks = F.pad(x, (0, -x.shape[1] % BLOCK))
    blocks = blocks.view(len(x), blocks.shape[1] // BLOCK, BLOCK)
    largest = blocks.abs().amax(-1, keepdim=True)
    widest = torch.tensor(WIDEST[bits])
    integers = (blocks * (widest / largest)).round_()
    out = torch.where(largest < SMALLEST, 0.0, integers * (largest / widest))
    out = torch.where(largest.isfinite(), out, float("nan"))
    return out.flatten(1)[:, : x.shape[1]].contiguous()
