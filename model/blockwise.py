"""
Answers that need no whole row of logits: scores, greedy tokens, the most likely, entropies. The
output projection reduces them block by block of the vocabulary; each has the bits that it has where
the row is whole (model/answers.py).

N positions, C hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from model.embedding import TiedEmbedding
from model.kernels import Projected, Wanted, logprobs_of
from model.step import Ask, Drawn, Report, Row, Score

MAX_TOP = 64  # more of the most likely are found sooner in a row that is whole


def serves(ask: Ask | None) -> bool:
    if ask is None:
        return True
    is_plain = not (ask.is_processed or ask.ids or ask.full or ask.members is not None)
    return is_plain and ask.top <= MAX_TOP


def answer(
    rows: Sequence[Row], hidden: Tensor, embedding: TiedEmbedding
) -> list[Drawn | Report | None]:
    """hidden (N,C), of rows that draw the likeliest token or none, with asks that it serves."""
    asks = [row.ask for row in rows]
    draws = [row.sampling is not None for row in rows]
    most = max(ask.top if ask is not None else 0 for ask in asks)
    wanted = Wanted(
        top=min(max(most, int(any(draws))), embedding.vocab_size),
        sums=any(ask is not None for ask in asks),
        entropies=any(ask is not None and ask.summary for ask in asks),
    )
    told = embedding.project(hidden, wanted)
    if told.sums is None:  # nothing is asked: all draw
        return [Drawn(token, None, None) for token in told.top_ids[:, 0].tolist()]
    tops = _tops(told, told.sums)
    abouts = _reports(asks, told, tops)
    return [
        Drawn(top[0].token, None if ask is None else top[0], about) if has_drawn else about
        for has_drawn, ask, top, about in zip(draws, asks, tops, abouts, strict=True)
    ]


def score(
    hidden: Tensor, targets: Tensor, ask: Ask | None, embedding: TiedEmbedding
) -> tuple[list[Score], list[Report]]:
    """As answers.score_targets, for an ask that it serves."""
    wanted = Wanted(
        ids=targets[:, None],
        top=0 if ask is None else min(ask.top, embedding.vocab_size),
        entropies=ask is not None and ask.summary,
    )
    told = embedding.project(hidden, wanted)
    assert told.sums is not None
    assert told.id_logits is not None
    assert told.ranks is not None
    logprobs = logprobs_of(told.id_logits, told.sums)
    columns = (targets, logprobs[:, 0], told.ranks[:, 0], told.id_logits[:, 0])
    found = list(map(Score, *(each.tolist() for each in columns)))
    if ask is None:
        return found, []
    reports = _reports([ask] * len(found), told, _tops(told, told.sums))
    return found, [each for each in reports if each is not None]


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
