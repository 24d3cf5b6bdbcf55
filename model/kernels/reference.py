"""
Every kernel in plain torch: what the native ones are tested against, and what serves without them.

Its last bits depend on the batch: torch's matrix products choose their order by the shape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from model.attention import Scoring, attend, attend_fused
from model.kernels.interface import (
    Draw,
    Gate,
    InputBits,
    Output,
    Pairs,
    Projected,
    Spans,
    Wanted,
    logprobs_of,
)
from model.kernels.reference_projection import project
from model.kernels.reference_quantised import rounded
from model.kernels.reference_sampling import pick, scale, truncate
from model.rope import angles, rotate, rotate_neighbours
from weights.quant import TILE, QuantTensor, dequantize, dequantize_rows

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

    def linears(
        self, x: Tensor, layers: Sequence[tuple[Tensor, Tensor | None]]
    ) -> tuple[Tensor, ...]:
        return tuple(self.linear(x, weight, bias) for weight, bias in layers)

    def quantised(
        self, x: Tensor, weight: QuantTensor, bias: Tensor | None = None, bits: InputBits = 16
    ) -> Tensor:
        x, (num_outputs, width) = rounded(x, bits), weight.shape
        out = x.new_empty(len(x), num_outputs)
        step = TILE * max(1, BLOCK_BYTES // (4 * TILE * width))
        for first in range(0, num_outputs, step):
            block = dequantize(weight, first, min(first + step, num_outputs))
            torch.mm(x, block.T, out=out[:, first : first + step])
        return out if bias is None else out.add_(bias)

    def quantised_linears(
        self,
        x: Tensor,
        layers: Sequence[tuple[QuantTensor, Tensor | None]],
        bits: InputBits = 16,
    ) -> tuple[Tensor, ...]:
        return tuple(self.quantised(x, weight, bias, bits) for weight, bias in layers)

    def look_up(self, table: QuantTensor, rows: Tensor) -> Tensor:
        return dequantize_rows(table, rows)

    def attend(
        self,
        q: Tensor,
        keys: Tensor,
        values: Tensor,
        spans: Spans,
        scoring: Scoring,
    ) -> Tensor:
        out = torch.empty_like(q)
        page_size, window = values.shape[2], scoring.window
        attended = attend_fused if scoring.is_plain else attend
        for first, position, count, offset in spans.rows.tolist():
            begin = 0 if window is None else max(0, position + 1 - window) // page_size
            end = -(-(position + count) // page_size)
            pages = spans.pages[offset + begin : offset + end]
            positions = position - begin * page_size + torch.arange(count)[None]
            k = keys[pages].permute(0, 3, 1, 2).flatten(0, 1)[None]
            v = values[pages].transpose(1, 2).flatten(0, 1)[None]
            tokens = slice(first, first + count)
            out[tokens] = attended(q[None, tokens], k, v, positions, scoring)[0]
        return out

    def write(self, keys: Tensor, values: Tensor, slots: Tensor, k: Tensor, v: Tensor) -> None:
        pages, offsets = slots // values.shape[2], slots % values.shape[2]
        keys[pages, :, :, offsets] = k
        values[pages, :, offsets] = v

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float, onto: Tensor | None = None) -> Tensor:
        return _sum(F.rms_norm(x, weight.shape, weight, eps), onto)

    def layer_norm(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        eps: float,
        onto: Tensor | None = None,
    ) -> Tensor:
        normed = F.layer_norm(x, weight.shape[-1:], eps=eps).mul_(weight)
        return _sum(normed if bias is None else normed.add_(bias), onto)

    def add(self, x: Tensor, onto: Tensor | None, by: float = 1.0) -> Tensor:
        return _sum(x if by == 1.0 else x.mul_(by), onto)

    def clamp(self, limit: float, x: Tensor) -> Tensor:
        return x.clamp_(-limit, limit)

    def columns(self, x: Tensor, first: int, width: int, step: int = 0, count: int = 1) -> Tensor:
        starts = range(first, first + count * step, step) if step else [first]
        return torch.cat([x[:, start : start + width] for start in starts], dim=-1)

    def angles(
        self, positions: Tensor, frequencies: Tensor, scale: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        return angles(positions, frequencies, scale)

    def rotate(self, cosines: Tensor, sines: Tensor, pairs: Pairs, x: Tensor) -> Tensor:
        turned = rotate if pairs == "halves" else rotate_neighbours
        return turned(x, cosines, sines)

    def gate(self, kind: Gate, x: Tensor, up: Tensor | None) -> Tensor:
        return GATES[kind](x) if up is None else GATES[kind](x).mul_(up)

    def cap(self, limit: float, x: Tensor) -> Tensor:
        return x.div_(limit).tanh_().mul_(limit)

    def is_finite(self, x: Tensor) -> bool:
        return bool(x.isfinite().all())

    def log_sum_exp(self, logits: Tensor) -> Tensor:
        return logits.double().logsumexp(-1)

    def log_softmax(self, logits: Tensor) -> Tensor:
        """
        The sum is taken in float64: torch's own float32 log_softmax is off by 3e-5 over 262,144
        tokens.
        """
        return logprobs_of(logits, self.log_sum_exp(logits))

    def entropy(self, logits: Tensor) -> Tensor:
        exact = logits.double().log_softmax(-1)
        return -torch.where(exact.isneginf(), 0.0, exact.exp() * exact).sum(-1)

    def ranks(
        self, logits: Tensor, rows: Tensor, tokens: Tensor, sums: Tensor | None = None
    ) -> Tensor:
        places = []
        for row, token in zip(_logprobs(logits, sums)[rows], tokens.tolist(), strict=True):
            ties_before = row[:token] == row[token]
            places.append(1 + int((row > row[token]).sum() + ties_before.sum()))
        return torch.tensor(places, dtype=torch.int64)

    def top(self, logits: Tensor, count: int, sums: Tensor | None = None) -> Tensor:
        ordered = _logprobs(logits, sums).sort(dim=-1, descending=True, stable=True)
        return ordered.indices[:, :count]

    def project(self, hidden: Tensor, output: Output, wanted: Wanted) -> Projected:
        return project(self, hidden, output, wanted)

    def choose(
        self,
        logits: Tensor,
        draws: Sequence[Draw],
        sums: Tensor | None = None,  # noqa: ARG002  it saves nothing here
        has_processed: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        scaled = [scale(row, draw) for row, draw in zip(logits, draws, strict=True)]
        shown = [
            truncate(row, self.log_softmax(row[None])[0], draw)
            for row, draw in zip(scaled, draws, strict=True)
        ]
        tokens = [
            int(row.argmax()) if draw.temperature == 0.0 else pick(row, draw.uniform)
            for row, draw in zip(shown, draws, strict=True)
        ]
        return torch.tensor(tokens), torch.stack(shown) if has_processed else None


def _logprobs(logits: Tensor, sums: Tensor | None) -> Tensor:
    return logits if sums is None else logprobs_of(logits, sums)


def _sum(x: Tensor, onto: Tensor | None) -> Tensor:
    return x if onto is None else x.add_(onto)


def _widened(x: Tensor, weight: Tensor) -> Tensor:
    """A bfloat16 weight, widened in blocks that stay in the processor's cache."""
    num_outputs, width = weight.shape
    out = x.new_empty(x.shape[0], num_outputs)
    rows = max(16, BLOCK_BYTES // (4 * width))
    for first in range(0, num_outputs, rows):
        block = weight[first : first + rows].float()
        torch.mm(x, block.T, out=out[:, first : first + rows])
    return out
