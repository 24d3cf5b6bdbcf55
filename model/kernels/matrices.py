"""How native functions are told of a matrix."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping

import torch

from weights.quant import KINDS, TILE, QuantTensor

MATRICES: Mapping[torch.dtype, int] = {torch.float32: 0, torch.bfloat16: 1}  # jobs.hpp: Matrix
KIND_NUMBERS = {  # quantised.hpp: CodeKind
    kind: (ctypes.c_int32 * 5)(
        kind.bits, kind.zero, kind.has_offset, kind.group, kind.groups_per_scale
    )
    for kind in KINDS.values()
}


def codes(x: QuantTensor) -> int:
    assert x.data.dtype == torch.uint8
    assert x.data.is_contiguous()
    assert x.data.shape == (-(-x.shape[0] // TILE), x.layout.tile_bytes)
    return x.data.data_ptr()
