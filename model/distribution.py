"""
Questions about next-token distributions: the most likely tokens, ranks, entropy.

One order everywhere: most likely first, ties of equal float32 log-probability to the lowest id. So
the greedy token, rank 1 and the first of `top` are always the same token. R distributions, V
vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.kernels import Kernels
from model.step import Ask, Report, Score

Row = npt.NDArray[np.float32]  # (V,)
MANY = 64  # tokens of one distribution, from which on sorting it finds their ranks sooner


def log_softmax(logits: Tensor, kernels: Kernels) -> Tensor:
    """
    logits (R,V) float32 -> (R,V) float32, each the exact value within two roundings.

    The sum is taken in float64: torch's own float32 log_softmax is off by 3e-5 over 262,144 tokens.
    """
    sums = kernels.log_sum_exp(logits)[:, None]
    high = sums.float()
    return (logits - high).sub_((sums - high).float())


def top_tokens(logprobs: Tensor, count: int) -> Tensor:
    """
    logprobs (R,V) -> the `count` most likely ids of each row (R,count), most likely first, ties to
    the lowest id.
    """
    return torch.from_numpy(np.stack([_top(row, count) for row in logprobs.numpy()]))


def _top(row: Row, count: int) -> npt.NDArray[np.int64]:
    """Only what is not below the last of them is sorted."""
    if 8 * count >= len(row):
        return np.argsort(-row, kind="stable")[:count]
    edge = np.partition(row, -count)[-count]
    likely = np.flatnonzero(row >= edge)
    return likely[np.argsort(-row[likely], kind="stable")[:count]]


def scores(logits: Tensor, logprobs: Tensor, tokens: Tensor) -> list[Score]:
    """logits and logprobs (R,V), tokens (R,) -> the score of one token in each distribution."""
    at = tokens[:, None]
    columns = (tokens, logprobs.gather(-1, at)[:, 0], logits.gather(-1, at)[:, 0])
    found = zip(*(column.tolist() for column in columns), logprobs.numpy(), strict=True)
    return [Score(token, logprob, _rank(row, token), logit) for token, logprob, logit, row in found]


def _rank(row: Row, token: int) -> int:
    """row (V,) -> 1 + how many tokens come before this one."""
    above, ties_before = row > row[token], row[:token] == row[token]
    return 1 + int(np.count_nonzero(above)) + int(np.count_nonzero(ties_before))


def _scores_of(ids: Sequence[int], logits: Row, logprobs: Row) -> tuple[Score, ...]:
    """logits and logprobs (V,) -> several tokens of one distribution."""
    if not ids:
        return ()
    ranks = [_rank(logprobs, i) for i in ids] if len(ids) < MANY else _ranks(logprobs, ids)
    at = list(ids)
    return tuple(map(Score, ids, logprobs[at].tolist(), ranks, logits[at].tolist()))


def _ranks(row: Row, ids: Sequence[int]) -> list[int]:
    """As _rank, by one sort for all."""
    ordered, values = np.sort(row), row[list(ids)]
    ends = np.searchsorted(ordered, values, side="right")
    is_tied = ends - np.searchsorted(ordered, values, side="left") > 1
    first = (1 + len(row) - ends).tolist()
    return [
        _rank(row, token) if tied else rank
        for token, rank, tied in zip(ids, first, is_tied, strict=True)
    ]


def mass(logprobs: Tensor, members: bytes, kernels: Kernels) -> list[float]:
    """logprobs (R,V) -> the logarithm of the probability of all members, of each row."""
    bits = np.unpackbits(np.frombuffer(members, np.uint8), bitorder="little")
    ids = torch.from_numpy(np.flatnonzero(bits[: logprobs.shape[-1]]))
    sums: list[float] = kernels.log_sum_exp(logprobs.index_select(-1, ids)).tolist()
    return sums


def tops(logits: Tensor, logprobs: Tensor, count: int) -> list[tuple[Score, ...]]:
    """logits and logprobs (R,V) -> the `count` most likely tokens of each distribution."""
    if count == 0:
        return [()] * len(logprobs)
    ids = top_tokens(logprobs, min(count, logprobs.shape[-1]))
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
    # abs: certainty is 0, not -0.
    entropies = kernels.entropy(logprobs).abs().tolist() if ask.summary else []
    sums = kernels.log_sum_exp(scaled).tolist() if ask.summary else []
    masses = mass(logprobs, ask.members, kernels) if ask.members is not None else []
    return [
        Report(
            top=top,
            ids=_scores_of(ask.ids, logits[r].numpy(), logprobs[r].numpy()),
            entropy=entropies[r] if ask.summary else None,
            logsumexp=sums[r] if ask.summary else None,
            full=logprobs[r].numpy().astype("<f4", copy=False).tobytes() if ask.full else None,
            mass=masses[r] if masses else None,
        )
        for r, top in enumerate(tops(logits, logprobs, ask.top))
    ]
