"""The output projection with whole rows of logits: what answering it block by block must equal."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from model.kernels.interface import Draw, Kernels, Output, Projected, Wanted
from model.kernels.parts import by_parts
from weights.quant import QuantTensor

CHUNK_BYTES = 64 << 20  # of logits, held at a time
GREEDY = Draw(temperature=0.0, top_k=0, top_p=1.0, min_p=0.0, uniform=0.0)


def logits(kernels: Kernels, hidden: Tensor, output: Output) -> Tensor:
    """hidden (N,C) float32 -> (N,V) float32."""
    if isinstance(output.table, QuantTensor):
        out = kernels.quantised(hidden, output.table)
    else:
        out = kernels.linear(hidden, output.table)
    if output.scale != 1.0:
        out = out.mul_(output.scale)
    return out if output.cap is None else kernels.cap(output.cap, out)


def project(kernels: Kernels, hidden: Tensor, output: Output, wanted: Wanted) -> Projected:
    size = max(1, CHUNK_BYTES // (4 * output.table.shape[0]))
    return by_parts(partial(_project, kernels, output), hidden, wanted, size)


def _project(kernels: Kernels, output: Output, hidden: Tensor, wanted: Wanted) -> Projected:
    whole = logits(kernels, hidden, output)
    sums = kernels.log_sum_exp(whole)
    top = _top(kernels, whole, wanted, sums)
    return Projected(
        sums=sums if wanted.sums else None,
        entropies=kernels.entropy(whole) if wanted.entropies else None,
        id_logits=None if wanted.ids is None else whole.gather(-1, wanted.ids),
        ranks=None if wanted.ids is None else _ranks(kernels, whole, wanted.ids, sums),
        top_ids=top,
        top_logits=whole.gather(-1, top),
    )


def _top(kernels: Kernels, whole: Tensor, wanted: Wanted, sums: Tensor) -> Tensor:
    if wanted.top == 0:
        return torch.empty(len(whole), 0, dtype=torch.int64)
    if not wanted.sums:
        return kernels.choose(whole, [GREEDY] * len(whole))[0][:, None]
    return kernels.top(whole, wanted.top, sums)


def _ranks(kernels: Kernels, whole: Tensor, ids: Tensor, sums: Tensor) -> Tensor:
    rows = torch.arange(len(ids)).repeat_interleave(ids.shape[1])
    return kernels.ranks(whole, rows, ids.flatten().contiguous(), sums).view_as(ids)
