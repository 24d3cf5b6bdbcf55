"""
Questions about next-token distributions: the most likely tokens, ranks, entropy.

One order everywhere: most likely first, ties of equal float32 log-probability to the lowest id. So
the greedy token, rank 1 and the first of `top` are always the same token. R distributions, V
vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.kernels import Kernels, logprobs_of
from model.step import Ask, Report, Score

ALL = slice(None)
MANY = 512  # tokens of one distribution, from which on sorting it finds their ranks sooner


@dataclass(frozen=True, slots=True)
class Told:
    """R distributions as they are told of. Log-probabilities are computed for what is asked."""

    logits: Tensor  # (R,V), before any processing
    values: Tensor  # (R,V), the same, or log-probabilities of the processed distributions
    sums: Tensor | None  # (R,) log_sum_exp of the logits; None: `values` are log-probabilities
    scaled: Tensor | None = None  # (R,V), with the latter: what softmax is taken of

    def part(self, rows: Sequence[int]) -> Told:
        if len(rows) == len(self.logits):
            return self
        index = torch.tensor(rows)
        scaled = None if self.scaled is None else self.scaled[index]
        sums = None if self.sums is None else self.sums[index]
        return Told(self.logits[index], self.values[index], sums, scaled)

    def logprobs(self, picked: Tensor, rows: Tensor | slice = ALL) -> Tensor:
        """picked (M,...) of the values of `rows` (M,) -> their log-probabilities."""
        return picked if self.sums is None else logprobs_of(picked, self.sums[rows])

    def log_sum_exp(self, kernels: Kernels) -> Tensor:
        """(R,) float64, of what softmax is taken of."""
        if self.sums is not None:
            return self.sums
        assert self.scaled is not None
        return kernels.log_sum_exp(self.scaled)


def scores(told: Told, rows: Tensor, tokens: Tensor, kernels: Kernels) -> list[Score]:
    """rows and tokens (M,) -> each token's score in its row."""
    ranks = kernels.ranks(told.values, rows, tokens, told.sums)
    return _listed(told, rows, tokens, ranks)


def _listed(told: Told, rows: Tensor, tokens: Tensor, ranks: Tensor) -> list[Score]:
    logprobs = told.logprobs(told.values[rows, tokens][:, None], rows)[:, 0]
    columns = (tokens, logprobs, ranks, told.logits[rows, tokens])
    return list(map(Score, *(each.tolist() for each in columns)))


def _scores_of(ids: Tensor, row: int, told: Told, kernels: Kernels) -> list[Score]:
    rows = torch.full_like(ids, row)
    if len(ids) < MANY:
        return scores(told, rows, ids, kernels)
    one = told.part([row])
    ranks = torch.empty(told.values.shape[-1], dtype=torch.int64)
    ranks[kernels.top(one.values, len(ranks), one.sums)[0]] = torch.arange(1, len(ranks) + 1)
    return _listed(told, rows, ids, ranks[ids])


def mass(told: Told, members: bytes, kernels: Kernels) -> list[float]:
    """-> the logarithm of the probability of all members, of each row."""
    bits = np.unpackbits(np.frombuffer(members, np.uint8), bitorder="little")
    ids = torch.from_numpy(np.flatnonzero(bits[: told.values.shape[-1]]))
    logprobs = told.logprobs(told.values.index_select(-1, ids))
    sums: list[float] = kernels.log_sum_exp(logprobs).tolist()
    return sums


def tops(told: Told, count: int, kernels: Kernels) -> list[tuple[Score, ...]]:
    """-> the `count` most likely tokens of each distribution."""
    if count == 0:
        return [()] * len(told.logits)
    ids = kernels.top(told.values, min(count, told.values.shape[-1]), told.sums)
    columns = (ids, told.logprobs(told.values.gather(-1, ids)), told.logits.gather(-1, ids))
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [
        tuple(
            Score(token, logprob, rank, logit)
            for rank, (token, logprob, logit) in enumerate(zip(*row, strict=True), start=1)
        )
        for row in rows
    ]


def reports(ask: Ask, told: Told, kernels: Kernels) -> list[Report]:
    if not (ask.top or ask.ids or ask.summary or ask.full or ask.members is not None):
        return [Report()] * len(told.logits)
    ids = torch.tensor(ask.ids, dtype=torch.long)
    # abs: certainty is 0, not -0.
    entropies = kernels.entropy(told.values).abs().tolist() if ask.summary else []
    sums = told.log_sum_exp(kernels).tolist() if ask.summary else []
    masses = mass(told, ask.members, kernels) if ask.members is not None else []
    return [
        Report(
            top=top,
            ids=tuple(_scores_of(ids, r, told, kernels)) if ask.ids else (),
            entropy=entropies[r] if ask.summary else None,
            logsumexp=sums[r] if ask.summary else None,
            full=_full(told, r) if ask.full else None,
            mass=masses[r] if masses else None,
        )
        for r, top in enumerate(tops(told, ask.top, kernels))
    ]


def _full(told: Told, row: int) -> bytes:
    one = told.part([row])
    return one.logprobs(one.values)[0].numpy().astype("<f4", copy=False).tobytes()
