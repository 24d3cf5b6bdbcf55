"""
Questions about next-token distributions: the most likely tokens, ranks, entropy.

One order everywhere: most likely first, ties of equal float32 log-probability to the lowest id. So
the greedy token, rank 1 and the first of `top` are always the same token. R distributions, V
vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model.kernels import Kernels
from model.step import Ask, Report, Score


def scores(
    logits: Tensor, logprobs: Tensor, rows: Tensor, tokens: Tensor, kernels: Kernels
) -> list[Score]:
    """logits and logprobs (R,V); rows and tokens (M,) -> each token's score in its row."""
    columns = (tokens, logprobs[rows, tokens], kernels.ranks(logprobs, rows, tokens))
    return list(map(Score, *(each.tolist() for each in (*columns, logits[rows, tokens]))))


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
    if not (ask.top or ask.ids or ask.summary or ask.full):
        return [Report()] * len(logits)
    ids = torch.tensor(ask.ids, dtype=torch.long)
    # abs: certainty is 0, not -0.
    entropies = kernels.entropy(logprobs).abs().tolist() if ask.summary else []
    sums = kernels.log_sum_exp(scaled).tolist() if ask.summary else []
    return [
        Report(
            top=top,
            ids=tuple(scores(logits, logprobs, torch.full_like(ids, r), ids, kernels)),
            entropy=entropies[r] if ask.summary else None,
            logsumexp=sums[r] if ask.summary else None,
            full=logprobs[r].numpy().astype("<f4", copy=False).tobytes() if ask.full else None,
        )
        for r, top in enumerate(tops(logits, logprobs, ask.top, kernels))
    ]
