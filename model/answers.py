"""
What the rows of a step asked for, from the hidden states at their positions.

R rows, N positions, C hidden size, V vocabulary. However many positions are asked about, logits
exist for a bounded number of them at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from model.distribution import reports, scores
from model.embedding import TiedEmbedding
from model.kernels import Draw, Kernels
from model.sampler import draw_of, shift
from model.step import Ask, Report, Row, Score

CHUNK_BYTES = 64 << 20  # of logits and log-probabilities, held at a time
GREEDY = Draw(temperature=0.0, top_k=0, top_p=1.0, min_p=0.0, uniform=0.0)


def answer_last(
    rows: Sequence[Row], hidden: Tensor, embedding: TiedEmbedding
) -> list[tuple[Score | None, Report | None]]:
    """
    hidden (R,C) at the last token of rows that draw or ask -> the token drawn and the report of
    each.
    """
    answers: list[tuple[Score | None, Report | None]] = []
    # Logits, shifted logits, what is told of, and the processed distributions.
    for part in _chunks(len(rows), 4 * embedding.vocab_size):
        answers += _answer(rows[part], embedding.logits(hidden[part]), embedding.kernels)
    return answers


def _answer(
    rows: Sequence[Row], logits: Tensor, kernels: Kernels
) -> list[tuple[Score | None, Report | None]]:
    """logits (R,V)."""
    rows = [_settle(row) for row in rows]
    shown = kernels.log_softmax(logits)
    shifted = shift(logits, rows)
    processed = [r for r, row in enumerate(rows) if _is_processed(row)]
    draws = [GREEDY if row.sampling is None else draw_of(row, row.sampling) for row in rows]
    tokens, distributions = kernels.choose(shifted, draws, bool(processed))
    if distributions is not None:
        shown[processed] = distributions[processed]
    drawn = scores(logits, shown, torch.arange(len(rows)), tokens, kernels)
    return [
        (
            None if row.sampling is None else drawn[r],
            None if row.ask is None else _report(row, logits[r], shifted[r], shown[r], kernels),
        )
        for r, row in enumerate(rows)
    ]


def _settle(row: Row) -> Row:
    """With the mask that was being computed meanwhile."""
    return row if row.pending is None else replace(row, allowed=row.pending(), pending=None)


def _is_processed(row: Row) -> bool:
    return row.sampling is not None and row.ask is not None and row.ask.is_processed


def _report(row: Row, logits: Tensor, shifted: Tensor, shown: Tensor, kernels: Kernels) -> Report:
    """The distribution told of, `shown`, is the softmax of the raw or of the scaled logits."""
    assert row.ask is not None
    scaled = logits
    if _is_processed(row) and row.sampling is not None:
        is_scaled = row.sampling.temperature not in (0.0, 1.0)
        scaled = shifted / row.sampling.temperature if is_scaled else shifted
    return reports(row.ask, logits[None], scaled[None], shown[None], kernels)[0]


def score_targets(
    hidden: Tensor, targets: Tensor, ask: Ask | None, embedding: TiedEmbedding
) -> tuple[list[Score], list[Report]]:
    """
    hidden (N,C) and the token that follows each, (N,) -> its score in the model's own distribution,
    and reports.
    """
    found: list[Score] = []
    told: list[Report] = []
    # Logits, log-probabilities, and nearly as many again where a mass is summed.
    has_members = ask is not None and ask.members is not None
    for part in _chunks(len(targets), (2 + has_members) * embedding.vocab_size):
        own, about = _score_part(hidden[part], targets[part], ask, embedding)
        found += own
        told += about
    return found, told


def _score_part(
    hidden: Tensor, targets: Tensor, ask: Ask | None, embedding: TiedEmbedding
) -> tuple[list[Score], list[Report]]:
    """A function, so that one part's logits are gone before the next part's are computed."""
    kernels = embedding.kernels
    logits = embedding.logits(hidden)
    logprobs = kernels.log_softmax(logits)
    about = [] if ask is None else reports(ask, logits, logits, logprobs, kernels)
    return scores(logits, logprobs, torch.arange(len(logits)), targets, kernels), about


def _chunks(count: int, num_floats: int) -> Iterator[slice]:
    size = max(1, CHUNK_BYTES // (4 * num_floats))
    return (slice(first, min(first + size, count)) for first in range(0, count, size))
