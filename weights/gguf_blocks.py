"""
GGUF's affine blocks taken apart: codes and scales as they are stored, nothing rounded.

Where a field lies in a block is the format's own definition (ggml-common.h).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from weights.quant import KINDS, Array, Kind, Rows


def take_apart(kind: Kind, raw: Array, num_rows: int) -> Rows:
    """raw: the bytes of `num_rows` whole rows, uint8."""
    return _READERS[kind.name](raw.reshape(num_rows, -1, _BLOCK_BYTES[kind.name]))


def is_finite(rows: Rows) -> bool:
    """Of every value: a code times a finite float16 is finite in float32."""
    parts = [rows.scales] if rows.offsets is None else [rows.scales, rows.offsets]
    return all(bool(np.isfinite(part).all()) for part in parts)


def _float16(blocks: Array, at: int) -> Array:
    return np.ascontiguousarray(blocks[:, :, at : at + 2]).view(np.float16)[:, :, 0]


def _joined(codes: Array) -> Array:
    return np.ascontiguousarray(codes).reshape(len(codes), -1)


def _nibbles(packed: Array) -> Array:
    """(R,B,n) bytes -> (R,B,2,n): all low halves of a block, then all high ones."""
    return np.stack((packed & 15, packed >> 4), axis=2)


def _q4_0(blocks: Array) -> Rows:
    return Rows(_joined(_nibbles(blocks[:, :, 2:])), _float16(blocks, 0))


def _q4_1(blocks: Array) -> Rows:
    codes = _joined(_nibbles(blocks[:, :, 4:]))
    return Rows(codes, _float16(blocks, 0), _float16(blocks, 2))


def _q5(blocks: Array, at: int) -> Array:
    """Fifth bits of 32 codes from `at` on, then their nibbles."""
    bits = np.unpackbits(blocks[:, :, at : at + 4], axis=2, bitorder="little")
    nibbles = _nibbles(blocks[:, :, at + 4 :])
    return _joined(nibbles.reshape(bits.shape) | bits << 4)


def _q5_0(blocks: Array) -> Rows:
    return Rows(_q5(blocks, 2), _float16(blocks, 0))


def _q5_1(blocks: Array) -> Rows:
    return Rows(_q5(blocks, 4), _float16(blocks, 0), _float16(blocks, 2))


def _q8_0(blocks: Array) -> Rows:
    return Rows(_joined(blocks[:, :, 2:] ^ 128), _float16(blocks, 0))  # a byte x as x + 128


def _scales_of_k(blocks: Array) -> tuple[Array, Array]:
    """Twelve bytes of eight scales and eight minima of six bits each -> (R,S * 8) int8 each."""
    first, second, both = blocks[:, :, 4:8], blocks[:, :, 8:12], blocks[:, :, 12:16]
    scales = np.concatenate((first & 63, (both & 15) | (first >> 2 & 48)), axis=2)
    minima = np.concatenate((second & 63, (both >> 4) | (second >> 2 & 48)), axis=2)
    return _joined(scales).view(np.int8), _joined(minima).view(np.int8)


def _of_k(blocks: Array, codes: Array) -> Rows:
    """A minimum is subtracted, an offset added: the sign goes into what all minima share."""
    scales, minima = _scales_of_k(blocks)
    return Rows(codes, _float16(blocks, 0), -_float16(blocks, 2), scales, minima)


def _q4_k(blocks: Array) -> Rows:
    """Four times 32 bytes: the low nibbles are a group's codes, the high ones the next group's."""
    nibbles = _nibbles(blocks[:, :, 16:].reshape(len(blocks), -1, 32))
    return _of_k(blocks, _joined(nibbles))


def _q5_k(blocks: Array) -> Rows:
    """As Q4_K, and before it 32 bytes whose bit g is the fifth bit of group g."""
    shape = (*blocks.shape[:2], 8, 32)
    nibbles = _nibbles(blocks[:, :, 48:].reshape(len(blocks), -1, 32)).reshape(shape)
    places = np.arange(8, dtype=np.uint8)[:, None]
    high = blocks[:, :, None, 16:48] >> places & 1
    return _of_k(blocks, _joined(nibbles | high << 4))


def _q6_k(blocks: Array) -> Rows:
    """
    Two halves of 128 codes: 64 bytes of nibbles and 32 of bit pairs each. The low nibbles of 64
    bytes, then the high ones; a byte's four pairs are 32 codes apart.
    """
    shape = (*blocks.shape[:2], 2, 4, 32)
    nibbles = _nibbles(blocks[:, :, :128].reshape(len(blocks), -1, 64)).reshape(shape)
    places = np.arange(0, 8, 2, dtype=np.uint8)[:, None]
    high = blocks[:, :, 128:192].reshape(*shape[:3], 1, 32) >> places & 3
    scales = _joined(blocks[:, :, 192:208]).view(np.int8)
    return Rows(_joined(nibbles | high << 4), _float16(blocks, 208), sub_scales=scales)


_READERS: Mapping[str, Callable[[Array], Rows]] = {
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q8_0": _q8_0,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
}
_BLOCK_BYTES: Mapping[str, int] = {
    "Q4_0": 18,
    "Q4_1": 20,
    "Q5_0": 22,
    "Q5_1": 24,
    "Q8_0": 34,
    "Q4_K": 144,
    "Q5_K": 176,
    "Q6_K": 210,
}
assert _READERS.keys() == _BLOCK_BYTES.keys() == KINDS.keys()
