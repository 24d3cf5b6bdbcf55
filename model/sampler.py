"""
From logits to the token drawn. One row at a time, so that no neighbour can matter.

The order is that of step.Sampling's fields: mask, bias, penalties, temperature, top-k, top-p,
min-p. The *scaled* logits are those after temperature; the *processed* distribution is after all of
them, and is what is drawn from: at temperature 0 it is one token's certainty.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from model.distribution import log_softmax, top_tokens
from model.step import Row, Sampling

MINUS_INFINITY = float("-inf")
NUM_CANDIDATES = 1024  # top-p looks at so many before it sorts the whole vocabulary


def scale(logits: Tensor, row: Row, sampling: Sampling) -> Tensor:
    """
    logits (V,) -> (V,) after mask, bias, penalties and temperature; itself where they change
    nothing.
    """
    if not _is_shifted(row, sampling):
        return logits if sampling.temperature in (0.0, 1.0) else logits / sampling.temperature
    scaled = logits.clone()
    if sampling.logit_bias:
        tokens, biases = zip(*sampling.logit_bias, strict=True)
        scaled[list(tokens)] += torch.tensor(biases)
    if sampling.repetition_penalty != 1.0:
        _repetition(scaled, (*row.prompt, *row.output), sampling.repetition_penalty)
    if row.output:
        tokens, counts = torch.unique(torch.tensor(row.output), return_counts=True)
        scaled[tokens] -= sampling.presence_penalty + sampling.frequency_penalty * counts
    _mask(scaled, row, sampling)
    return scaled if sampling.temperature in (0.0, 1.0) else scaled.div_(sampling.temperature)


def _is_shifted(row: Row, sampling: Sampling) -> bool:
    return bool(
        sampling.allowed_ids is not None
        or sampling.logit_bias
        or sampling.repetition_penalty != 1.0
        or sampling.presence_penalty
        or sampling.frequency_penalty
        or row.banned
        or row.allowed is not None
    )


def _mask(scaled: Tensor, row: Row, sampling: Sampling) -> None:
    if sampling.allowed_ids is not None:
        keep = torch.zeros_like(scaled, dtype=torch.bool)
        keep[list(sampling.allowed_ids)] = True
        scaled.masked_fill_(~keep, MINUS_INFINITY)
    if row.allowed is not None:
        bits = np.unpackbits(np.frombuffer(row.allowed, np.uint8), bitorder="little")
        scaled.masked_fill_(torch.from_numpy(bits[: len(scaled)] == 0), MINUS_INFINITY)
    if row.banned:
        banned = list(row.banned)
        kept = scaled[banned]
        scaled[banned] = MINUS_INFINITY
        if bool(scaled.isneginf().all()):  # nothing else is allowed: something must follow
            scaled[banned] = kept


def _repetition(scaled: Tensor, seen: Sequence[int], penalty: float) -> None:
    """
    Keskar et al. 2019, section 4.1, with negative logits made more so, as all implementations since
    do.
    """
    tokens = torch.unique(torch.tensor(seen))
    at = scaled[tokens]
    scaled[tokens] = torch.where(at > 0, at / penalty, at * penalty)


def truncate(logprobs: Tensor, sampling: Sampling) -> Tensor:
    """
    log-softmax of the scaled logits (V,) -> the processed distribution (V,), summing to one again.
    """
    if sampling.temperature == 0.0:
        return _keep(logprobs, logprobs.argmax()[None])
    kept = None
    if 0 < sampling.top_k < len(logprobs):
        kept = top_tokens(logprobs[None], sampling.top_k)[0]
    if sampling.top_p < 1.0:
        kept = _nucleus(logprobs, kept, sampling.top_p)
    if sampling.min_p > 0.0:
        likely = logprobs.exp() >= sampling.min_p * logprobs.max().exp()
        kept = likely.nonzero().flatten() if kept is None else kept[likely[kept]]
    return logprobs if kept is None else _keep(logprobs, kept)


def _nucleus(logprobs: Tensor, kept: Tensor | None, top_p: float) -> Tensor:
    """
    The fewest of the most likely ids whose share reaches top_p (Holtzman et al. 2020), one at
    least.
    """
    if kept is None:
        kept = top_tokens(logprobs[None], min(NUM_CANDIDATES, len(logprobs)))[0]
        if float(logprobs[kept].double().exp().sum()) < top_p:
            kept = top_tokens(logprobs[None], len(logprobs))[0]
        total = 1.0
    else:
        total = float(logprobs[kept].double().exp().sum())
    mass = logprobs[kept].double().exp().cumsum(-1)
    reached = int(torch.searchsorted(mass, top_p * total)) + 1
    return kept[:reached]


def _keep(logprobs: Tensor, ids: Tensor) -> Tensor:
    out = torch.full_like(logprobs, MINUS_INFINITY)
    out[ids] = log_softmax(logprobs[ids][None])[0]
    return out


def draw(logprobs: Tensor, seed: int, index: int) -> int:
    """
    Processed distribution (V,) -> an id: where one uniform number falls in the cumulative sum, in
    order of ids.
    """
    cumulative = logprobs.exp().cumsum(-1, dtype=torch.float64)
    at = uniform(seed, index) * float(cumulative[-1])
    # The first id whose mass exceeds `at`: never one of probability 0, which adds nothing to it.
    return int(torch.searchsorted(cumulative, at, right=True))


def uniform(seed: int, index: int) -> float:
    """
    [0, 1), from (seed, index) alone: counter-based, so that preemption, neighbours and threads
    cannot move it.
    """
    digest = hashlib.blake2b(f"{seed}/{index}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 11) * 2.0**-53
