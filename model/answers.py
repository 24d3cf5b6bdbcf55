"""
What the rows of a step asked for, from the hidden states at their positions.

R rows, N positions, C hidden size, V vocabulary. However many positions are asked about, logits
exist for a bounded number of them at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from model.distribution import log_softmax, reports, scores
from model.embedding import TiedEmbedding
from model.kernels import Kernels
from model.sampler import draw, scale, truncate
from model.step import Ask, Report, Row, Sampling, Score

CHUNK_BYTES = 64 << 20  # of logits, log-probabilities and comparisons, held at a time


def answer_last(
    rows: Sequence[Row], hidden: Tensor, embedding: TiedEmbedding
) -> list[tuple[Score | None, Report | None]]:
    """
    hidden (R,C) at the last token of rows that draw or ask -> the token drawn and the report of
    each.
    """
    answers: list[tuple[Score | None, Report | None]] = []
    for part in _chunks(len(rows), embedding.vocab_size):
        logits = embedding.logits(hidden[part])
        raw = log_softmax(logits, embedding.kernels)
        answers += _answer(rows[part], logits, raw, embedding.kernels)
    return answers


def _answer(
    rows: Sequence[Row], logits: Tensor, raw: Tensor, kernels: Kernels
) -> list[tuple[Score | None, Report | None]]:
    """logits and their log-softmax, (R,V)."""
    tokens = torch.zeros(len(rows), dtype=torch.long)
    shown, scaled = list(raw), list(logits)
    for r, row in enumerate(rows):
        if row.sampling is not None:
            tokens[r], shown[r], scaled[r] = _choose(row, row.sampling, logits[r], raw[r], kernels)
    is_raw = not any(row.ask is not None and row.ask.is_processed for row in rows)
    drawn = scores(logits, raw if is_raw else torch.stack(shown), tokens)
    return [
        (
            None if row.sampling is None else drawn[r],
            None if row.ask is None else _report(row.ask, logits[r], scaled[r], shown[r], kernels),
        )
        for r, row in enumerate(rows)
    ]


def _choose(
    row: Row, sampling: Sampling, logits: Tensor, raw: Tensor, kernels: Kernels
) -> tuple[int, Tensor, Tensor]:
    """
    logits and raw (V,) -> the token, the distribution to tell of (V,), and the logits it is the
    softmax of (V,).
    """
    scaled = scale(logits, row, sampling)
    logprobs = raw if scaled is logits else log_softmax(scaled[None], kernels)[0]
    is_processed = row.ask is not None and row.ask.is_processed
    if sampling.temperature == 0.0 and not is_processed:
        return int(logprobs.numpy().argmax()), raw, logits
    processed = truncate(logprobs, sampling, kernels)
    index = len(row.output)
    is_greedy = sampling.temperature == 0.0
    token = int(processed.numpy().argmax()) if is_greedy else draw(processed, sampling.seed, index)
    return (token, processed, scaled) if is_processed else (token, raw, logits)


def _report(ask: Ask, logits: Tensor, scaled: Tensor, shown: Tensor, kernels: Kernels) -> Report:
    return reports(ask, logits[None], scaled[None], shown[None], kernels)[0]


def score_targets(
    hidden: Tensor, targets: Tensor, ask: Ask | None, embedding: TiedEmbedding
) -> tuple[list[Score], list[Report]]:
    """
    hidden (N,C) and the token that follows each, (N,) -> its score in the model's own distribution,
    and reports.
    """
    found: list[Score] = []
    told: list[Report] = []
    has_members = ask is not None and ask.members is not None
    for part in _chunks(len(targets), embedding.vocab_size, has_members):
        logits = embedding.logits(hidden[part])
        logprobs = log_softmax(logits, embedding.kernels)
        found += scores(logits, logprobs, targets[part])
        if ask is not None:
            told += reports(ask, logits, logits, logprobs, embedding.kernels)
    return found, told


def _chunks(count: int, vocab_size: int, has_members: bool = False) -> Iterator[slice]:
    """The members' log-probabilities are gathered beside: nearly as many again."""
    size = max(1, CHUNK_BYTES // (vocab_size * (4 + 4 + 1 + 4 * has_members)))
    return (slice(first, min(first + size, count)) for first in range(0, count, size))
