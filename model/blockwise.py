"""
Answers that need no whole row of logits: scores, greedy tokens, the most likely, entropies. The
output projection reduces them block by block of the vocabulary; each has the bits that it has where
the row is whole (model/answers.py).

N positions, C hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from model.embedding import TiedEmbedding
from model.kernels import Projected, Wanted, logprobs_of
from model.step import Ask, Drawn, Report, Row, Score

Scored = tuple[list[Score], list[Report]]  # a score a target, and where there is an ask a report

MAX_TOP = 64  # more of the most likely are found sooner in a row that is whole


def serves(ask: Ask | None) -> bool:
    if ask is None:
        return True
    is_plain = not (ask.is_processed or ask.ids or ask.full or ask.members is not None)
    return is_plain and ask.top <= MAX_TOP


@dataclass(frozen=True, slots=True)
class Answering:
    """Rows that draw the likeliest token or none, with asks that `serves`."""

    rows: Sequence[Row]
    hidden: Tensor  # (N,C), of each

    def wanted(self, vocab_size: int) -> Wanted:
        asks = [row.ask for row in self.rows if row.ask is not None]
        draws = any(row.sampling is not None for row in self.rows)
        most = max((ask.top for ask in asks), default=0)
        return Wanted(
            top=min(max(most, int(draws)), vocab_size),
            sums=bool(asks),
            entropies=any(ask.summary for ask in asks),
        )

    def read(self, told: Projected) -> list[Drawn | Report | None]:
        if told.sums is None:  # nothing is asked: all draw
            return [Drawn(token, None, None) for token in told.top_ids[:, 0].tolist()]
        asks = [row.ask for row in self.rows]
        tops = _tops(told, told.sums)
        abouts = _reports(asks, told, tops)
        return [
            Drawn(top[0].token, None if ask is None else top[0], about)
            if row.sampling is not None
            else about
            for row, ask, top, about in zip(self.rows, asks, tops, abouts, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class Scoring:
    """Tokens that follow positions of rows, all with the same ask."""

    targets: Tensor  # (N,)
    ask: Ask | None
    hidden: Tensor  # (N,C), before each

    def wanted(self, vocab_size: int) -> Wanted:
        return Wanted(
            ids=self.targets[:, None],
            top=0 if self.ask is None else min(self.ask.top, vocab_size),
            entropies=self.ask is not None and self.ask.summary,
        )

    def read(self, told: Projected) -> Scored:
        assert told.sums is not None
        assert told.id_logits is not None
        assert told.ranks is not None
        logprobs = logprobs_of(told.id_logits, told.sums)
        columns = (self.targets, logprobs[:, 0], told.ranks[:, 0], told.id_logits[:, 0])
        found = list(map(Score, *(each.tolist() for each in columns)))
        if self.ask is None:
            return found, []
        reports = _reports([self.ask] * len(found), told, _tops(told, told.sums))
        return found, [each for each in reports if each is not None]


def project(questions: Sequence[Answering | Scoring], embedding: TiedEmbedding) -> list[Projected]:
    """What each wants, by one pass over the matrix. Asks are those that `serves`."""
    if not questions:
        return []
    wishes = [each.wanted(embedding.vocab_size) for each in questions]
    if len(questions) == 1:
        return [embedding.project(questions[0].hidden, wishes[0])]
    hidden = torch.cat([each.hidden for each in questions])
    told = embedding.project(hidden, _together(wishes, [len(each.hidden) for each in questions]))
    ends = accumulate(len(each.hidden) for each in questions)
    return [
        _part(told, slice(end - len(each.hidden), end))
        for each, end in zip(questions, ends, strict=True)
    ]


def _together(wishes: Sequence[Wanted], sizes: Sequence[int]) -> Wanted:
    """Whoever wants no token is told of token 0."""
    ids = [
        torch.zeros((size, 1), dtype=torch.int64) if wanted.ids is None else wanted.ids
        for wanted, size in zip(wishes, sizes, strict=True)
    ]
    return Wanted(
        ids=torch.cat(ids),
        top=max(wanted.top for wanted in wishes),
        entropies=any(wanted.entropies for wanted in wishes),
    )


def _part(told: Projected, rows: slice) -> Projected:
    def part(x: Tensor | None) -> Tensor | None:
        return None if x is None else x[rows]

    return Projected(
        sums=part(told.sums),
        entropies=part(told.entropies),
        id_logits=part(told.id_logits),
        ranks=part(told.ranks),
        top_ids=told.top_ids[rows],
        top_logits=told.top_logits[rows],
    )


def _reports(
    asks: Sequence[Ask | None], told: Projected, tops: Sequence[tuple[Score, ...]]
) -> list[Report | None]:
    entropies = _numbers(told.entropies)
    sums = _numbers(told.sums)
    return [
        None
        if ask is None
        else Report(
            top=top[: ask.top],
            # abs: certainty is 0, not -0.
            entropy=abs(entropies[n]) if ask.summary else None,
            logsumexp=sums[n] if ask.summary else None,
        )
        for n, (ask, top) in enumerate(zip(asks, tops, strict=True))
    ]


def _tops(told: Projected, sums: Tensor) -> list[tuple[Score, ...]]:
    columns = (told.top_ids, logprobs_of(told.top_logits, sums), told.top_logits)
    ranks = range(1, told.top_ids.shape[1] + 1)
    return [
        tuple(map(Score, tokens, logprobs, ranks, logits))
        for tokens, logprobs, logits in zip(*(each.tolist() for each in columns), strict=True)
    ]


def _numbers(x: Tensor | None) -> list[float]:
    return [] if x is None else x.tolist()
