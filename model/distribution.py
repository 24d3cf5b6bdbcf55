"""
Questions about next-token distributions: the most likely tokens, ranks, entropy.

One order everywhere: most likely first, ties of equal float32 log-probability to the lowest id. So
the greedy token, rank 1 and the first of `top` are always the same token. R distributions, V
vocabulary.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from model.kernels import Kernels
from model.step import Ask, Report, Score

MANY = 512  # tokens of one distribution, from which on sorting it finds their ranks sooner


def scores(
    logits: Tensor, logprobs: Tensor, rows: Tensor, tokens: Tensor, kernels: Kernels
) -> list[Score]:
    """logits and logprobs (R,V); rows and tokens (M,) -> each token's score in its row."""
    columns = (tokens, logprobs[rows, tokens], kernels.ranks(logprobs, rows, tokens))
    return list(map(Score, *(each.tolist() for each in (*columns, logits[rows, tokens]))))


def _scores_of(ids: Tensor, logits: Tensor, logprobs: Tensor, kernels: Kernels) -> list[Score]:
    """ids (M,), logits and logprobs (1,V)"""
    if len(ids) < MANY:
        return scores(logits, logprobs, torch.zeros_like(ids), ids, kernels)
    ranks = torch.empty(logprobs.shape[-1], dtype=torch.int64)
    ranks[kernels.top(logprobs, len(ranks))[0]] = torch.arange(1, len(ranks) + 1)
    columns = (ids, logprobs[0, ids], ranks[ids], logits[0, ids])
    return list(map(Score, *(each.tolist() for each in columns)))


def mass(logprobs: Tensor, members: bytes, kernels: Kernels) -> list[float]:
    """logprobs (R,V) -> the logarithm of the probability of all members, of each row."""
    bits = np.unpackbits(np.frombuffer(members, np.uint8), bitorder="little")
    ids = torch.from_numpy(np.flatnonzero(bits[: logprobs.shape[-1]]))
    sums: list[float] = kernels.log_sum_exp(logprobs.index_select(-1, ids)).tolist()
    return sums


def tops(logits: Tensor, logprobs: Tensor, count: int, kernels: Kernels) -> list[tuple[Score, ...]]:
    """logits and logprobs (R,V) -> the `count` most likely tokens of each distribution."""
    if count == 0:
        return [()] * len(logprobs)
    ids = kernels.top(logprobs, min(count, logprobs.shape[-1]))
    columns = (ids, logprobs.gather(-1, ids), logits.gather(-1, ids))
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [
        tuple(
            Score(token, logprob, rank, logit)
            for rank, (token, logprob, logit) in enumerate(zip(*row, strict=True), start=1)
        )
        for row in rows
    ]


def reports(
    ask: Ask, logits: Tensor, scaled: Tensor, logprobs: Tensor, kernels: Kernels
) -> list[Report]:
    """logits as the model gave them, scaled (what softmax is taken of) and logprobs, each (R,V)."""
    if not (ask.top or ask.ids or ask.summary or ask.full or ask.members is not None):
        return [Report()] * len(logits)
    ids = torch.tensor(ask.ids, dtype=torch.long)
    # abs: certainty is 0, not -0.
    entropies = kernels.entropy(logprobs).abs().tolist() if ask.summary else []
    sums = kernels.log_sum_exp(scaled).tolist() if ask.summary else []
    masses = mass(logprobs, ask.members, kernels) if ask.members is not None else []
    return [
        Report(
            top=top,
            ids=tuple(_scores_of(ids, logits[r : r + 1], logprobs[r : r + 1], kernels)),
            entropy=entropies[r] if ask.summary else None,
            logsumexp=sums[r] if ask.summary else None,
            full=logprobs[r].numpy().astype("<f4", copy=False).tobytes() if ask.full else None,
            mass=masses[r] if masses else None,
        )
        for r, top in enumerate(tops(logits, logprobs, ask.top, kernels))
    ]
