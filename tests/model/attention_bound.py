"""
How far attention in float32 may be from exact attention: every rounding of the kernel, at the size
of what is rounded. To first order, as Higham (2002, chapter 3) counts them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model.alibi import coarse
from model.attention import Scoring, visible_keys

ROUNDING = 2.0**-24
CHAIN = 32  # products of a score that follow one another in a sum
OF_EXP, OF_TANH = 2 * 2, 4 * 2  # units of the last place, which are at most two roundings each
BLOCK = 4  # pages, after each of which what was summed may shrink


def rounding_bound(q: Tensor, k: Tensor, v: Tensor, scoring: Scoring, page_size: int) -> Tensor:
    """
    q (T,H,D), k and v (T,K,D) of a whole sequence -> (T,H,D): the largest error of each output.

    An output is the mean of values by weights e^score. Where weight j is off by a share e_j, the
    mean moves by sum_j p_j e_j (v_j - mean): errors count where there is weight, and not at all
    where the weight is on one value. A score of -72 beside one of 3 may be off by 72 roundings,
    and nothing moves.
    """
    q, k, v = (
        q.double(),
        *(x.double().repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v)),
    )
    T = len(q)
    scores, errors = scores_and_errors(q, k, scoring)
    scores = scores.masked_fill(~visible_keys(torch.arange(T)[None], T, scoring.window), -torch.inf)
    weights = scores.softmax(-1)
    # Differences to the largest score so far, and of that to the next, round as far as they go.
    errors += (scores.amax(-1, keepdim=True) - scores).nan_to_num(posinf=0.0)
    errors += OF_EXP + (OF_EXP + 1) * -(-T // (BLOCK * page_size))  # each shrinks once more
    mean = torch.einsum("hts,shd->thd", weights, v)
    moved = torch.einsum("hts,tshd->thd", weights * errors, (v - mean[:, None]).abs())
    # Values are added one by one, weights in 16 lanes and these to one another; then a division.
    added = torch.einsum("hts,shd->thd", weights, v.abs()) * (T + T / 16 + 16 + 1)
    return 1.01 * ROUNDING * (moved + added)


def scores_and_errors(q: Tensor, k: Tensor, scoring: Scoring) -> tuple[Tensor, Tensor]:
    """q and k (T,H,D) float64 -> scores (H,T,T), and by how many roundings of 1 each may be off."""
    T, _, D = q.shape
    scores = torch.einsum("thd,shd->hts", q, k) * scoring.scale
    sizes = torch.einsum("thd,shd->hts", q.abs(), k.abs()) * scoring.scale
    # Each product, then each sum of CHAIN; the scale, and the query times it.
    errors = sizes * (min(D, CHAIN) + -(-D // CHAIN) + 2)
    positions = torch.arange(T)
    if scoring.slopes is not None and scoring.is_coarse:
        gains = coarse(scoring.slopes, positions)
        gains = (gains[:, None] - gains[..., None]).double() * scoring.scale
        scores = scores + gains
        errors = errors + 3 * gains.abs() + scores.abs()  # the difference, the scale twice; the sum
    if scoring.cap is not None:  # whose slope is at most 1
        scores = scoring.cap * torch.tanh(scores / scoring.cap)
        errors = errors + (OF_TANH + 4) * scores.abs()  # the cap counts twice, quotient and product
    if scoring.slopes is not None and not scoring.is_coarse:
        distances = positions[:, None] - positions
        scores = scores - scoring.slopes.double()[:, None, None] * distances
        errors = errors + scores.abs()
    return scores, errors
