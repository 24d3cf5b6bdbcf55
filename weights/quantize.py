"""A matrix of numbers -> codes of 4 or 8 bits: round to nearest, by the scale that errs least."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from weights.checkpoint import CheckpointError
from weights.quant import BLOCK, KINDS, TILE, Array, Kind, QuantTensor, Rows, empty, pack

CHUNK_VALUES = 1 << 18  # quantised at a time, so that the temporaries stay in the cache
# Of the scale that just reaches the largest value. Cutting it short costs that value and spares
# the others; with few codes that pays.
SHARES = {4: (0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0, 1.05), 8: (1.0,)}


def quantize(weight: Tensor, kind: Kind) -> QuantTensor:
    """
    weight (O,C) -> symmetric codes of Q4_0 or Q8_0.

    CheckpointError where a value is too large for a float16 scale.
    """
    assert kind in (KINDS["Q4_0"], KINDS["Q8_0"])
    num_rows, width = weight.shape
    tensor = empty(kind, (num_rows, width))
    step = max(1, CHUNK_VALUES // (TILE * width)) * TILE
    for first in range(0, num_rows, step):
        values = weight[first : first + step].to(torch.float32).numpy()
        padded = np.pad(values, ((0, 0), (0, -width % BLOCK)))
        pack(tensor, first, _rounded(padded, kind))
    return tensor


def _rounded(values: Array, kind: Kind) -> Rows:
    groups = values.reshape(len(values), -1, BLOCK)
    lowest = np.float32(-kind.zero if kind.bits == 4 else 1 - kind.zero)
    highest = np.float32(kind.zero - 1)
    largest = np.take_along_axis(groups, np.abs(groups).argmax(-1)[..., None], -1)
    # The code furthest from zero is negative: what is largest gets it, whatever its sign.
    best = np.zeros_like(groups)
    scales = np.zeros_like(largest)
    least = np.full_like(largest, np.inf)
    for share in SHARES[kind.bits]:
        codes = _codes(groups, largest * np.float32(share) / lowest, lowest, highest)
        scale = _fitted(groups, codes)
        codes = _codes(groups, scale, lowest, highest)
        error = np.square(groups - codes * scale).sum(-1, keepdims=True)
        is_better = error < least
        np.copyto(best, codes, where=is_better)
        np.copyto(scales, scale, where=is_better)
        np.copyto(least, error, where=is_better)
    if not np.isfinite(scales).all():
        raise CheckpointError("a weight is too large to be quantised")
    codes = (best + np.float32(kind.zero)).astype(np.uint8)
    return Rows(codes.reshape(values.shape), scales[..., 0].astype(np.float16))


def _codes(groups: Array, scale: Array, lowest: np.float32, highest: np.float32) -> Array:
    with np.errstate(divide="ignore", over="ignore"):
        inverse = np.where(scale == 0, np.float32(0), 1 / scale)
    rounded: Array = np.rint(groups * np.where(np.isfinite(inverse), inverse, np.float32(0)))
    return rounded.clip(lowest, highest)


def _fitted(groups: Array, codes: Array) -> Array:
    """The scale with the least squared error for these codes, as float16 has it."""
    squares = np.square(codes).sum(-1, keepdims=True)
    products = (groups * codes).sum(-1, keepdims=True)
    scale = np.divide(products, squares, out=np.zeros_like(products), where=squares > 0)
    with np.errstate(over="ignore"):
        rounded: Array = scale.astype(np.float16).astype(np.float32)
    return rounded
