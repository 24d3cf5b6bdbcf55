"""
Rows laid out for one forward pass, and the paged memory its attention layers use.

Tokens of all rows lie behind one another: first the rows with one token (decoding), which attend
together as one batch, then the longer ones (prompt chunks), which attend one by one.

Worked example, page_size 4: a row with tokens [9], start 5, pages [7, 2] has position 5, which is
offset 1 of its second page, so its key goes to slot 2*4 + 1 = 9. A full layer gathers pages 7 and
2, eight keys, of which it may see the first six. With a window of 2 it may see positions 4 and 5:
page 2 alone is gathered, whose first key is at position 4.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.attention import attend_fused, visible_keys
from model.kv_pool import KVPool
from model.step import Row

Window = int | None


@dataclass(frozen=True, slots=True)
class View:
    """What the rows of a group look at, for one window: B rows, M pages a row, T queries."""

    pages: Tensor  # (B,M), shorter rows filled up with page 0, which is masked
    visible: Tensor  # (B,T,M*page_size)


@dataclass(frozen=True, slots=True)
class Group:
    """Rows that attend together: B rows of T tokens each."""

    tokens: slice  # of the N tokens
    shape: tuple[int, int]  # (B,T)
    views: Mapping[Window, View]


@dataclass(frozen=True, slots=True)
class Batch:
    tokens: Tensor  # (N,)
    positions: Tensor  # (N,)
    slots: Tensor  # (N,) page * page_size + offset
    groups: tuple[Group, ...]
    firsts: tuple[int, ...]  # where each row's tokens begin, in the order the rows came in


def plan(rows: Sequence[Row], page_size: int, windows: Iterable[Window] = (None,)) -> Batch:
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].tokens) != 1)
    tokens: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    firsts = [0] * len(rows)
    for i in order:
        row = rows[i]
        firsts[i] = len(tokens)
        tokens.extend(row.tokens)
        for position in range(row.start, row.start + len(row.tokens)):
            positions.append(position)
            slots.append(row.pages[position // page_size] * page_size + position % page_size)
    groups = _groups([rows[i] for i in order], page_size, tuple(windows))
    return Batch(
        torch.tensor(tokens), torch.tensor(positions), torch.tensor(slots), groups, tuple(firsts)
    )


def _groups(rows: Sequence[Row], page_size: int, windows: Sequence[Window]) -> tuple[Group, ...]:
    singles = sum(len(row.tokens) == 1 for row in rows)
    parts = [rows[:singles]] if singles else []
    parts += [[row] for row in rows[singles:]]
    groups, first = [], 0
    for part in parts:
        B, T = len(part), len(part[0].tokens)
        views = {window: _view(part, page_size, window) for window in windows}
        groups.append(Group(slice(first, first + B * T), (B, T), views))
        first += B * T
    return tuple(groups)


def _view(rows: Sequence[Row], page_size: int, window: Window) -> View:
    T = len(rows[0].tokens)
    pages, bases = [], []
    for row in rows:
        end = -(-(row.start + T) // page_size)
        begin = 0 if window is None else max(0, row.start + 1 - window) // page_size
        pages.append(list(row.pages[begin:end]))
        bases.append(begin * page_size)
    longest = max(map(len, pages))
    padded = torch.tensor([row + [0] * (longest - len(row)) for row in pages])
    starts = torch.tensor([row.start for row in rows]) - torch.tensor(bases)
    positions = starts[:, None] + torch.arange(T)
    return View(padded, visible_keys(positions, longest * page_size, window))


class PagedMemory:
    """
    transformer.Memory over a KVPool: each layer writes the batch's keys and values, then looks
    through the pages.
    """

    def __init__(self, pool: KVPool, batch: Batch) -> None:
        self.pool, self.batch = pool, batch

    def attend(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float, window: Window
    ) -> Tensor:
        """q (N,H,D), k and v (N,K,D) -> (N,H,D)."""
        self.pool.write(layer, self.batch.slots, k, v)
        outs = []
        for group in self.batch.groups:
            view = group.views[window]
            keys, values = self.pool.gather(layer, view.pages)
            queries = q[group.tokens].view(*group.shape, *q.shape[1:])
            outs.append(attend_fused(queries, keys, values, view.visible, scale).flatten(0, 1))
        return outs[0] if len(outs) == 1 else torch.cat(outs)
