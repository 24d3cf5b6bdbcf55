"""A projection's rows some at a time, so that what is held meanwhile is bounded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from model.kernels.interface import Projected, Wanted


def by_parts(
    project: Callable[[Tensor, Wanted], Projected], hidden: Tensor, wanted: Wanted, size: int
) -> Projected:
    """hidden (N,C), `size` rows at a time."""
    if len(hidden) <= size:
        return project(hidden, wanted)
    parts = []
    for first in range(0, len(hidden), size):
        rows = slice(first, first + size)
        ids = None if wanted.ids is None else wanted.ids[rows]
        parts.append(project(hidden[rows], replace(wanted, ids=ids)))
    return Projected(
        sums=_joined([part.sums for part in parts]),
        entropies=_joined([part.entropies for part in parts]),
        id_logits=_joined([part.id_logits for part in parts]),
        ranks=_joined([part.ranks for part in parts]),
        top_ids=torch.cat([part.top_ids for part in parts]),
        top_logits=torch.cat([part.top_logits for part in parts]),
    )


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    """What is not wanted is in no part."""
    found = [part for part in parts if part is not None]
    return torch.cat(found) if found else None
