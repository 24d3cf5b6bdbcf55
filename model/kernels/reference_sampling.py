"""
How a token is chosen, in plain torch and by sorting: what the native sampling is tested against.

One distribution at a time, V tokens. Kept are the first of an order: the largest logits after
temperature first, ties to the lowest id; without a draw the likeliest, whose logits may differ by
what rounding takes from their log-probabilities.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model.kernels.interface import Draw

MINUS_INFINITY = float("-inf")


def scale(logits: Tensor, draw: Draw) -> Tensor:
    return logits if draw.temperature in (0.0, 1.0) else logits / draw.temperature


def truncate(scaled: Tensor, logprobs: Tensor, draw: Draw) -> Tensor:
    """Scaled logits (V,), their log-softmax -> the processed distribution (V,), summing to one."""
    first = logprobs if draw.temperature == 0.0 else scaled
    order = first.sort(descending=True, stable=True).indices
    count = 1 if draw.temperature == 0.0 else draw.top_k or len(order)
    kept = order[:count]
    if draw.temperature > 0.0 and draw.top_p < 1.0:
        kept = kept[: _nucleus(logprobs[kept], draw.top_p)]
    if draw.temperature > 0.0:
        kept = kept[logprobs[kept].exp() >= draw.min_p * logprobs.max().exp()]
    out = torch.full_like(logprobs, MINUS_INFINITY)
    out[kept] = logprobs[kept].double().log_softmax(-1).float()
    return out


def _nucleus(logprobs: Tensor, top_p: float) -> int:
    """How many of these, most likely first, reach a share of top_p (Holtzman et al. 2020)."""
    mass = logprobs.double().exp().cumsum(-1)
    return int(torch.searchsorted(mass, top_p * float(mass[-1]))) + 1


def pick(logprobs: Tensor, uniform: float) -> int:
    """Processed distribution (V,) -> the id where `uniform` falls in the cumulative sum."""
    cumulative = logprobs.double().exp().cumsum(-1)
    # The first id whose mass exceeds it: one that underflowed to 0 adds nothing and is passed.
    return int(torch.searchsorted(cumulative, uniform * float(cumulative[-1]), right=True))
