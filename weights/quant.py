"""
Matrices as small integer codes with a scale for each group of inputs, in the order kernels read.

An input's weight is scale * (code - zero) + offset: every affine block type of GGUF fits without
loss. docs/quantization.md draws the layout. Nothing here knows files or arithmetic units.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray[Any, Any]

TILE = 16  # outputs whose codes lie side by side
BLOCK = 32  # inputs whose codes lie behind one another; a row is padded to a multiple
LINE = 64  # bytes: TILE outputs by 4 inputs, a byte each
CHUNK_VALUES = 1 << 19  # dequantised at a time: the temporaries stay in the processor's cache
NIBBLES = np.uint32(0x0F0F0F0F)


@dataclass(frozen=True, slots=True)
class Kind:
    """What blocks are made of; the names are GGUF's."""

    name: str
    bits: int  # of a code: 4, 5, 6 or 8
    zero: int
    has_offset: bool = False
    group: int = 32  # inputs that share a scale
    groups_per_scale: int = 1  # more: each has an int8, which multiplies a float16 of them all


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("Q4_0", 4, 8),
        Kind("Q4_1", 4, 0, has_offset=True),
        Kind("Q5_0", 5, 16),
        Kind("Q5_1", 5, 0, has_offset=True),
        Kind("Q8_0", 8, 128),
        Kind("Q4_K", 4, 0, has_offset=True, groups_per_scale=8),
        Kind("Q5_K", 5, 0, has_offset=True, groups_per_scale=8),
        Kind("Q6_K", 6, 32, group=16, groups_per_scale=16),
    )
}


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the parts of a tile begin, in bytes; each begins on a LINE."""

    num_blocks: int
    num_groups: int
    num_scales: int
    offsets: int  # behind the scales, which come first
    sub_scales: int
    sub_offsets: int
    codes: int
    tile_bytes: int


@dataclass(frozen=True, slots=True)
class QuantTensor:
    """A matrix (O,C) of O outputs, whatever orientation its family stores it in."""

    kind: Kind
    shape: tuple[int, int]
    data: Tensor  # (ceil(O / TILE), layout.tile_bytes) uint8

    @property
    def layout(self) -> Layout:
        return layout_of(self.kind, self.shape[1])

    @property
    def num_bytes(self) -> int:
        return self.data.numel()


@dataclass(frozen=True, slots=True)
class Rows:
    """R rows taken apart. Codes are padded to whole blocks; what they are padded with is unused."""

    codes: Array  # (R,num_blocks * BLOCK) uint8
    scales: Array  # (R,num_scales) float16
    offsets: Array | None = None  # (R,num_scales) float16
    sub_scales: Array | None = None  # (R,num_groups) int8
    sub_offsets: Array | None = None  # (R,num_groups) int8


def layout_of(kind: Kind, width: int) -> Layout:
    num_blocks = -(-width // BLOCK)
    num_groups = num_blocks * (BLOCK // kind.group)
    num_scales = -(-num_groups // kind.groups_per_scale)
    of_scales = _whole_lines(2 * TILE * num_scales)
    of_subs = _whole_lines(TILE * num_groups) if kind.groups_per_scale > 1 else 0
    sub_scales = of_scales * (2 if kind.has_offset else 1)
    sub_offsets = sub_scales + of_subs
    codes = sub_offsets + (of_subs if kind.has_offset else 0)
    end = codes + num_blocks * kind.bits * LINE
    return Layout(
        num_blocks, num_groups, num_scales, of_scales, sub_scales, sub_offsets, codes, end
    )


def _whole_lines(num_bytes: int) -> int:
    return -(-num_bytes // LINE) * LINE


def data_shape(kind: Kind, shape: tuple[int, int]) -> tuple[int, int]:
    """Of QuantTensor.data: tiles, bytes of one."""
    return -(-shape[0] // TILE), layout_of(kind, shape[1]).tile_bytes


def empty(kind: Kind, shape: tuple[int, int]) -> QuantTensor:
    return QuantTensor(kind, shape, torch.empty(data_shape(kind, shape), dtype=torch.uint8))


def is_finite(tensor: QuantTensor) -> bool:
    """Of every value: a code times a finite float16 is finite in float32."""
    at = tensor.layout
    read = _Reader(tensor.data.numpy(), at.num_scales, at.num_groups)
    parts = [0, at.offsets] if tensor.kind.has_offset else [0]
    return all(bool(np.isfinite(read.floats(start)).all()) for start in parts)


def pack(tensor: QuantTensor, first: int, rows: Rows) -> None:
    """Write rows [first, first + R): whole tiles, or up to the last row."""
    assert first % TILE == 0
    num_rows = len(rows.codes)
    out = tensor.data[first // TILE : -(-(first + num_rows) // TILE)].numpy()
    at = tensor.layout
    _write(out, 0, np.float16, rows.scales)
    _write(out, at.offsets, np.float16, rows.offsets)
    _write(out, at.sub_scales, np.int8, rows.sub_scales)
    _write(out, at.sub_offsets, np.int8, rows.sub_offsets)
    lines = _tiled(rows.codes.view(np.uint32))  # (T,inputs / 4,TILE)
    lines = lines.reshape(len(out), at.num_blocks, 8, TILE)
    codes = out[:, at.codes :].view(np.uint32)
    _write_lines(
        tensor.kind.bits, lines, codes.reshape(len(out), at.num_blocks, tensor.kind.bits, TILE)
    )


def unpack(tensor: QuantTensor, first_tile: int, last_tile: int) -> Rows:
    """Rows of tiles [first_tile, last_tile), those that pad the last one included."""
    return _unpack(tensor.kind, tensor.layout, tensor.data[first_tile:last_tile].numpy())


def _unpack(kind: Kind, at: Layout, tiles: Array) -> Rows:
    has_subs = kind.groups_per_scale > 1
    shape = (len(tiles), at.num_blocks, kind.bits, TILE)
    lines = _read_lines(kind.bits, tiles[:, at.codes :].view(np.uint32).reshape(shape))
    num_words = at.num_blocks * BLOCK // 4
    words = np.ascontiguousarray(lines.reshape(len(tiles), num_words, TILE).swapaxes(1, 2))
    read = _Reader(tiles, at.num_scales, at.num_groups)
    return Rows(
        words.reshape(TILE * len(tiles), num_words).view(np.uint8),
        read.floats(0),
        read.floats(at.offsets) if kind.has_offset else None,
        read.integers(at.sub_scales) if has_subs else None,
        read.integers(at.sub_offsets) if has_subs and kind.has_offset else None,
    )


@dataclass(frozen=True, slots=True)
class _Reader:
    tiles: Array
    num_scales: int
    num_groups: int

    def floats(self, start: int) -> Array:
        return self._part(start, self.num_scales, np.float16)

    def integers(self, start: int) -> Array:
        return self._part(start, self.num_groups, np.int8)

    def _part(self, start: int, count: int, dtype: type[np.generic]) -> Array:
        num_bytes = np.dtype(dtype).itemsize * TILE * count
        part = self.tiles[:, start : start + num_bytes].view(dtype)
        by_output = part.reshape(len(part), count, TILE).swapaxes(1, 2)
        return by_output.reshape(TILE * len(part), count)


def _tiled(values: Array) -> Array:
    """(R,n) -> (T,n,TILE), outputs side by side, the last tile padded with zeros."""
    if len(values) % TILE:
        values = np.pad(values, ((0, -len(values) % TILE), (0, 0)))
    return values.reshape(-1, TILE, values.shape[1]).swapaxes(1, 2)


def _write(out: Array, start: int, dtype: type[np.generic], values: Array | None) -> None:
    """The bytes up to the next part's line are zeros."""
    if values is None:
        return
    width = np.dtype(dtype).itemsize
    num_bytes = width * TILE * values.shape[1]
    part = out[:, start : start + num_bytes].view(dtype)
    part.reshape(len(out), values.shape[1], TILE)[...] = _tiled(values)
    out[:, start + num_bytes : start + _whole_lines(num_bytes)] = 0


def _write_lines(bits: int, lines: Array, out: Array) -> None:
    """
    lines (T,B,8,TILE) of four codes each -> out (T,B,bits,TILE).

    The low four bits of lines 0 and 1 share a line, 2 and 3 the next, and so on; then come the
    fifth bits of all eight in one line, or the fifth and sixth bits of four in each of two.
    """
    if bits == 8:
        out[...] = lines
        return
    out[:, :, :4] = (lines[:, :, 0::2] & NIBBLES) | (lines[:, :, 1::2] & NIBBLES) << np.uint32(4)
    for line, q, shift, mask in _high_bits(bits):
        high = (lines[:, :, q] >> np.uint32(4) & mask) << shift
        out[:, :, line] = high if shift == 0 else out[:, :, line] | high


def _read_lines(bits: int, stored: Array) -> Array:
    if bits == 8:
        return stored
    lines = np.empty((*stored.shape[:2], 8, TILE), np.uint32)
    lines[:, :, 0::2] = stored[:, :, :4] & NIBBLES
    lines[:, :, 1::2] = stored[:, :, :4] >> np.uint32(4) & NIBBLES
    for line, q, shift, mask in _high_bits(bits):
        lines[:, :, q] |= (stored[:, :, line] >> shift & mask) << np.uint32(4)
    return lines


def _high_bits(bits: int) -> Iterator[tuple[int, int, np.uint32, np.uint32]]:
    """(stored line, line of codes, shift in a byte, mask) of all bits above the fourth."""
    width = bits - 4
    mask = np.uint32(0x01010101 * (2**width - 1))
    for q in range(8 if width else 0):
        line, place = divmod(q * width, 8)
        yield 4 + line, q, np.uint32(place), mask


def values_of(kind: Kind, rows: Rows) -> Array:
    """-> (R,num_blocks * BLOCK) float32, bit for bit what GGUF's own dequantisation gives."""
    num_groups = rows.codes.shape[1] // kind.group
    scales = _spread(kind, rows.scales, rows.sub_scales, num_groups)
    codes = rows.codes.reshape(len(rows.codes), num_groups, kind.group).astype(np.float32)
    codes -= np.float32(kind.zero)
    codes *= scales[:, :, None]
    if rows.offsets is not None:
        codes += _spread(kind, rows.offsets, rows.sub_offsets, num_groups)[:, :, None]
    return codes.reshape(rows.codes.shape)


def _spread(kind: Kind, shared: Array, subs: Array | None, num_groups: int) -> Array:
    """A float32 for each group."""
    spread = np.repeat(shared.astype(np.float32), kind.groups_per_scale, axis=1)[:, :num_groups]
    return spread if subs is None else spread * subs.astype(np.float32)


def dequantize(tensor: QuantTensor, first: int = 0, last: int | None = None) -> Tensor:
    """Rows [first, last) -> (last - first,C) float32."""
    last = tensor.shape[0] if last is None else last
    width = tensor.shape[1]
    out = np.empty((max(0, last - first), width), np.float32)
    step = max(1, CHUNK_VALUES // (TILE * width))
    end = -(-last // TILE) if last > first else 0
    for tile in range(first // TILE, end, step):
        values = values_of(tensor.kind, unpack(tensor, tile, min(tile + step, end)))
        start = max(first, tile * TILE)
        stop = min(last, (tile + step) * TILE)
        out[start - first : stop - first] = values[start - tile * TILE :][: stop - start, :width]
    return torch.from_numpy(out)


def dequantize_rows(tensor: QuantTensor, rows: Tensor) -> Tensor:
    """rows (N,) -> (N,C) float32: a lookup."""
    tiles = tensor.data[rows // TILE].numpy()
    values = values_of(tensor.kind, _unpack(tensor.kind, tensor.layout, tiles))
    picked = np.arange(len(tiles)) * TILE + (rows % TILE).numpy()
    return torch.from_numpy(np.ascontiguousarray(values[picked, : tensor.shape[1]]))
