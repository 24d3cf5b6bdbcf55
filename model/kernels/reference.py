"""
Every kernel in plain torch: what the native ones are tested against, and what serves without them.

Its last bits depend on the batch: torch's matrix products choose their order by the shape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from model.attention import Scoring, attend, attend_fused
from model.kernels.interface import Gate, Spans

BLOCK_BYTES = 1 << 20  # of float32: half of a usual second-level cache

GATES: Mapping[Gate, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
}


class TorchKernels:
    name = "torch"

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if weight.dtype == torch.float32:
            return F.linear(x, weight, bias)
        out = _widened(x, weight)
        return out if bias is None else out.add_(bias)

    def attend(
        self,
        q: Tensor,
        keys: Tensor,
        values: Tensor,
        spans: Spans,
        scoring: Scoring,
    ) -> Tensor:
        out = torch.empty_like(q)
        page_size, window = keys.shape[1], scoring.window
        attended = attend_fused if scoring.is_plain else attend
        for first, position, count, offset in spans.rows.tolist():
            begin = 0 if window is None else max(0, position + 1 - window) // page_size
            end = -(-(position + count) // page_size)
            pages = spans.pages[offset + begin : offset + end]
            positions = position - begin * page_size + torch.arange(count)[None]
            k, v = (cached[pages].flatten(0, 1)[None] for cached in (keys, values))
            tokens = slice(first, first + count)
            out[tokens] = attended(q[None, tokens], k, v, positions, scoring)[0]
        return out

    def gate(self, kind: Gate, x: Tensor, up: Tensor | None) -> Tensor:
        return GATES[kind](x) if up is None else GATES[kind](x).mul_(up)

    def cap(self, limit: float, x: Tensor) -> Tensor:
        return x.div_(limit).tanh_().mul_(limit)

    def log_sum_exp(self, logits: Tensor) -> Tensor:
        return logits.double().logsumexp(-1)

    def entropy(self, logprobs: Tensor) -> Tensor:
        exact = logprobs.double()
        return -torch.where(exact.isneginf(), 0.0, exact.exp() * exact).sum(-1)


def _widened(x: Tensor, weight: Tensor) -> Tensor:
    """A bfloat16 weight, widened in blocks that stay in the processor's cache."""
    num_outputs, width = weight.shape
    out = x.new_empty(x.shape[0], num_outputs)
    rows = max(16, BLOCK_BYTES // (4 * width))
    for first in range(0, num_outputs, rows):
        block = weight[first : first + rows].float()
        torch.mm(x, block.T, out=out[:, first : first + rows])
    return out
