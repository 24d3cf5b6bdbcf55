"""
Rows laid out for one forward pass, and the paged memory its attention layers use.

Tokens of all rows lie behind one another, in the order the rows came in.

Worked example, page_size 4: a row with tokens [9], start 5, pages [7, 2] has position 5, which is
offset 1 of its second page, so its key goes to slot 2*4 + 1 = 9. It may see six keys: four of page
7 and two of page 2; with a window of 2, those of page 2 alone.

A row without tokens adds nothing to the N: its sequence ends with a full page, whose last hidden
state is kept, and is told of from that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.attention import Scoring
from model.kernels import Kernels, Spans
from model.kv_pool import KVPool
from model.step import Row


@dataclass(frozen=True, slots=True)
class Batch:
    tokens: Tensor  # (N,)
    positions: Tensor  # (N,)
    slots: Tensor  # (N,) page * page_size + offset
    firsts: tuple[int, ...]  # where each row's tokens begin
    spans: Spans
    filled: tuple[tuple[int, int], ...]  # where a page's last token is among the N, and the page
    ends: tuple[int, ...]  # where each row's last token is among the N; without tokens, where its
    # kept hidden state is, if those lie behind the N in the order of `kept`
    kept: tuple[int, ...]  # the last pages of rows without tokens


def plan(rows: Sequence[Row], page_size: int) -> Batch:
    tokens: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    spans: list[tuple[int, int, int, int]] = []
    pages: list[int] = []
    filled: list[tuple[int, int]] = []
    ends: list[int] = []
    kept: list[int] = []
    num_tokens = sum(len(row.tokens) for row in rows)
    for row in rows:
        spans.append((len(tokens), row.start, len(row.tokens), len(pages)))
        if row.tokens:
            ends.append(len(tokens) + len(row.tokens) - 1)
        else:
            ends.append(num_tokens + len(kept))
            kept.append(row.pages[row.start // page_size - 1])
        tokens.extend(row.tokens)
        pages.extend(row.pages)
        end = row.start + len(row.tokens)
        for position in range(row.start, end):
            positions.append(position)
            slots.append(row.pages[position // page_size] * page_size + position % page_size)
        filled += [
            (len(tokens) - end + (index + 1) * page_size - 1, row.pages[index])
            for index in range(row.start // page_size, end // page_size)
        ]
    firsts = tuple(first for first, *_ in spans)
    spans.sort(key=_num_seen, reverse=True)  # the longest first, or threads wait for the last
    return Batch(
        torch.tensor(tokens, dtype=torch.int64),
        torch.tensor(positions, dtype=torch.int64),
        torch.tensor(slots, dtype=torch.int64),
        firsts,
        Spans(torch.tensor(spans), torch.tensor(pages)),
        tuple(filled),
        tuple(ends),
        tuple(kept),
    )


def _num_seen(span: tuple[int, int, int, int]) -> int:
    """About how many keys its tokens see, all together."""
    _, start, num_tokens, _ = span
    return num_tokens * (start + num_tokens)


class PagedMemory:
    """
    transformer.Memory over a KVPool: each layer writes the batch's keys and values, then looks
    through the pages.
    """

    def __init__(self, pool: KVPool, batch: Batch, kernels: Kernels) -> None:
        self.pool, self.batch, self.kernels = pool, batch, kernels

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scoring: Scoring) -> Tensor:
        """q (N,H,D), k and v (N,K,D) -> (N,H,D)."""
        keys, values = self.pool.keys[layer], self.pool.values[layer]
        self.kernels.write(keys, values, self.batch.slots, k, v)
        return self.kernels.attend(q, keys, values, self.batch.spans, scoring)
