"""A matrix of numbers -> codes of 4 or 8 bits, each group by the scale that errs least."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from weights.checkpoint import CheckpointError
from weights.quant import BLOCK, TILE, Array, Kind, QuantTensor, Rows, empty, pack

CHUNK_VALUES = 1 << 17  # quantised at a time, so that the temporaries stay in the cache
# Of the scale that just reaches the largest value. A smaller one costs that value and spares the
# others; where codes are few it pays.
SHARES = (0.72, 0.77, 0.82, 0.87, 0.92, 0.96, 1.0)


def quantize(weight: Tensor, kind: Kind) -> QuantTensor:
    """
    weight (O,C) -> Q4_0 or Q8_0, rounded to nearest.

    CheckpointError where a value is too large for a float16 scale.
    """
    round_groups = {"Q4_0": _to_four_bits, "Q8_0": _to_eight_bits}[kind.name]
    num_rows, width = weight.shape
    tensor = empty(kind, (num_rows, width))
    step = max(1, CHUNK_VALUES // (TILE * width)) * TILE
    for first in range(0, num_rows, step):
        values = weight[first : first + step].to(torch.float32).contiguous().numpy()
        groups = np.pad(values, ((0, 0), (0, -width % BLOCK))).reshape(len(values), -1, BLOCK)
        codes, scales = round_groups(groups)
        if not np.isfinite(scales).all():
            raise CheckpointError("a weight is too large to be rounded to codes.")
        codes += np.float32(kind.zero)
        pack(tensor, first, Rows(codes.reshape(len(values), -1).astype(np.uint8), scales))
    return tensor


def _to_eight_bits(groups: Array) -> tuple[Array, Array]:
    """(R,G,BLOCK) -> codes around zero, and scales (R,G) float16."""
    largest = np.maximum(groups.max(-1), -groups.min(-1))
    scales = _halves(largest / np.float32(127))
    return _codes(groups, _inverse(scales), -127, 127), scales


def _to_four_bits(groups: Array) -> tuple[Array, Array]:
    """
    Likewise. Codes go from -8 to 7, and -8 is for the value furthest from zero, so that a scale
    has the other sign.

    For codes c of values g the best scale is gc/cc, and the squared error it leaves gg - gc^2/cc.
    """
    furthest = np.abs(groups).argmax(-1)[..., None]
    reaching = np.take_along_axis(groups, furthest, -1)[..., 0] / np.float32(-8)
    most = np.full(reaching.shape, -1.0, np.float32)
    best, fitted = np.zeros_like(reaching), np.zeros_like(reaching)
    for share in SHARES:
        inverse = _inverse(reaching * np.float32(share))
        codes = _codes(groups, inverse, -8, 7)
        products = np.einsum("rgk,rgk->rg", groups, codes)
        squares = np.maximum(np.einsum("rgk,rgk->rg", codes, codes), np.float32(1))
        explained = products * products / squares
        is_better = explained > most
        most = np.where(is_better, explained, most)
        best = np.where(is_better, inverse, best)
        fitted = np.where(is_better, products / squares, fitted)
    return _codes(groups, best, -8, 7), _halves(fitted)


def _codes(groups: Array, inverse: Array, lowest: int, highest: int) -> Array:
    codes: Array = groups * inverse[..., None]
    np.rint(codes, out=codes)
    return codes.clip(np.float32(lowest), np.float32(highest), out=codes)


def _halves(scales: Array) -> Array:
    with np.errstate(over="ignore"):
        halves: Array = scales.astype(np.float16)
    return halves


def _inverse(scales: Array) -> Array:
    """0 where there is none: the group's values are then too small for any scale."""
    wide = scales.astype(np.float32)
    is_tiny = np.abs(wide) < np.float32(1e-38)
    return np.where(is_tiny, np.float32(0), 1 / np.where(is_tiny, np.float32(1), wide))
