"""
From logits to the token drawn. No row can matter to another.

The order is that of step.Sampling's fields: mask, bias, penalties, temperature, top-k, top-p,
min-p. The *shifted* logits are those before temperature; the *processed* distribution is after all
of them, and is what is drawn from: at temperature 0 it is one token's certainty. The kernels do
what comes after the shift, for all rows at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from model.kernels import Draw
from model.step import Row, Sampling

MINUS_INFINITY = float("-inf")


def shift(logits: Tensor, rows: Sequence[Row]) -> Tensor:
    """
    logits (R,V) of rows that draw -> (R,V) after mask, bias and penalties; itself where they change
    nothing.
    """
    wanted = [(r, row) for r, row in enumerate(rows) if is_shifted(row)]
    shifted = logits.clone() if wanted else logits
    for r, row in wanted:
        assert row.sampling is not None
        _shift(shifted[r], row, row.sampling)
    return shifted


def draw_of(row: Row, sampling: Sampling, num_drafts: int = 0) -> Draw:
    """What is left to do after the shift, where so many drafts stand before the token drawn."""
    index = len(row.output) + num_drafts
    number = 0.0 if sampling.temperature == 0.0 else uniform(sampling.seed, index)
    return Draw(sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p, number)


def _shift(shifted: Tensor, row: Row, sampling: Sampling) -> None:
    """shifted (V,), in place."""
    if sampling.logit_bias:
        tokens, biases = zip(*sampling.logit_bias, strict=True)
        shifted[list(tokens)] += torch.tensor(biases)
    if sampling.repetition_penalty != 1.0:
        _repetition(shifted, (*row.prompt, *row.output), sampling.repetition_penalty)
    if row.output and (sampling.presence_penalty or sampling.frequency_penalty):
        tokens, counts = torch.unique(torch.tensor(row.output), return_counts=True)
        shifted[tokens] -= sampling.presence_penalty + sampling.frequency_penalty * counts
    _mask(shifted, row, sampling)


def is_shifted(row: Row) -> bool:
    sampling = row.sampling
    return sampling is not None and bool(
        sampling.allowed_ids is not None
        or sampling.logit_bias
        or sampling.repetition_penalty != 1.0
        or sampling.presence_penalty
        or sampling.frequency_penalty
        or row.banned
        or row.allowed is not None
        or row.pending is not None
    )


def _mask(shifted: Tensor, row: Row, sampling: Sampling) -> None:
    if sampling.allowed_ids is not None:
        keep = torch.zeros_like(shifted, dtype=torch.bool)
        keep[list(sampling.allowed_ids)] = True
        shifted.masked_fill_(~keep, MINUS_INFINITY)
    if row.allowed is not None:
        bits = np.unpackbits(np.frombuffer(row.allowed, np.uint8), bitorder="little")
        shifted.masked_fill_(torch.from_numpy(bits[: len(shifted)] == 0), MINUS_INFINITY)
    if row.banned:
        banned = list(row.banned)
        kept = shifted[banned]
        shifted[banned] = MINUS_INFINITY
        if bool(shifted.isneginf().all()):  # nothing else is allowed: something must follow
            shifted[banned] = kept


def _repetition(shifted: Tensor, seen: Sequence[int], penalty: float) -> None:
    """
    Keskar et al. 2019, section 4.1, with negative logits made more so, as all implementations since
    do.
    """
    tokens = torch.unique(torch.tensor(seen))
    at = shifted[tokens]
    shifted[tokens] = torch.where(at > 0, at / penalty, at * penalty)


def uniform(seed: int, index: int) -> float:
    """
    [0, 1), from (seed, index) alone: counter-based, so that preemption, neighbours and threads
    cannot move it.
    """
    digest = hashlib.blake2b(f"{seed}/{index}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 11) * 2.0**-53
