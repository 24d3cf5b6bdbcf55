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
import numpy.typing as npt
import torch
from torch import Tensor

from model.distribution import log_softmax
from model.kernels import Kernels
from model.step import Row, Sampling

MINUS_INFINITY = float("-inf")

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]


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


def truncate(logprobs: Tensor, sampling: Sampling, kernels: Kernels) -> Tensor:
    """log-softmax of the scaled logits (V,) -> the processed distribution (V,), summing to one."""
    row: Floats = logprobs.numpy()
    if sampling.temperature == 0.0:
        return _keep(logprobs, np.array([row.argmax()]), kernels)
    kept = None
    if 0 < sampling.top_k < len(row):
        kept = _likeliest(row, sampling.top_k)
    if sampling.top_p < 1.0:
        kept = _nucleus(row, kept, sampling.top_p)
    if sampling.min_p > 0.0:
        likely = np.exp(row) >= sampling.min_p * np.exp(row.max())
        kept = np.flatnonzero(likely) if kept is None else kept[likely[kept]]
    return logprobs if kept is None else _keep(logprobs, kept, kernels)


def _likeliest(row: Floats, count: int) -> Ids:
    """The `count` most likely ids, ties to the lowest, in no order: a selection, not a sort."""
    floor = np.partition(row, len(row) - count)[len(row) - count]
    above = np.flatnonzero(row > floor)
    ties = np.flatnonzero(row == floor)[: count - len(above)]
    return np.concatenate((above, ties))


def _nucleus(row: Floats, kept: Ids | None, top_p: float) -> Ids:
    """The fewest of the most likely ids whose share reaches top_p (Holtzman et al. 2020)."""
    among = row if kept is None else row[np.sort(kept)]
    sorted_probabilities = torch.from_numpy(np.exp(np.sort(among)[::-1]))
    mass = sorted_probabilities.cumsum(-1, dtype=torch.float64)
    reached = int(torch.searchsorted(mass, top_p * float(mass[-1]))) + 1
    ids = _likeliest(among, reached)
    return ids if kept is None else np.sort(kept)[ids]


def _keep(logprobs: Tensor, ids: Ids, kernels: Kernels) -> Tensor:
    out, at = torch.full_like(logprobs, MINUS_INFINITY), torch.from_numpy(ids)
    out[at] = log_softmax(logprobs[at][None], kernels)[0]
    return out


def draw(logprobs: Tensor, seed: int, index: int) -> int:
    """
    Processed distribution (V,) -> an id: where one uniform number falls in the cumulative sum, in
    order of ids.
    """
    possible = np.flatnonzero(logprobs.numpy() > MINUS_INFINITY)  # exp is slow at minus infinity
    cumulative = logprobs[torch.from_numpy(possible)].exp().cumsum(-1, dtype=torch.float64)
    at = uniform(seed, index) * float(cumulative[-1])
    # The first id whose mass exceeds `at`: one that underflowed to 0 adds nothing and is passed.
    return int(possible[int(torch.searchsorted(cumulative, at, right=True))])


def uniform(seed: int, index: int) -> float:
    """
    [0, 1), from (seed, index) alone: counter-based, so that preemption, neighbours and threads
    cannot move it.
    """
    digest = hashlib.blake2b(f"{seed}/{index}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 11) * 2.0**-53
