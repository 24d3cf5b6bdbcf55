"""
The header of a GGUF file: metadata and tensor directory, each length checked against the file
before it is used.

Layout (github.com/ggml-org/ggml, docs/gguf.md): magic, version, two counts; metadata as key, type,
value; tensors as name, dimensions (innermost first), type, offset; then the data, aligned. The gguf
package reads the same, in seconds instead of tenths of one, and trusts what it reads.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType

from weights.checkpoint import CheckpointError, UnsupportedCheckpoint
from weights.fields import shown
from weights.gguf_directory import TensorInfo, check_places

MAGIC = b"GGUF"
VERSIONS = (2, 3)  # 1 had 32-bit counts, and was out for weeks
MAX_NAME, MAX_DIMENSIONS, MAX_ALIGNMENT = 65535, 4, 1 << 20
SMALLEST_PAIR, SMALLEST_TENSOR = (
    8 + 4 + 1,
    8 + 4 + 8 + 4 + 8,
)  # bytes of a metadata entry, of a tensor's

V = GGUFValueType
NUMBERS: Mapping[int, np.dtype[Any]] = {
    V.UINT8: np.dtype("<u1"),
    V.INT8: np.dtype("<i1"),
    V.UINT16: np.dtype("<u2"),
    V.INT16: np.dtype("<i2"),
    V.UINT32: np.dtype("<u4"),
    V.INT32: np.dtype("<i4"),
    V.FLOAT32: np.dtype("<f4"),
    V.BOOL: np.dtype("?"),
    V.UINT64: np.dtype("<u8"),
    V.INT64: np.dtype("<i8"),
    V.FLOAT64: np.dtype("<f8"),
}


Value = bool | int | float | str | list[str] | np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Header:
    metadata: Mapping[str, Value]  # a number array is a numpy array, a string array a list
    tensors: Mapping[str, TensorInfo]


def read_header(path: Path) -> Header:
    """Memory is bounded by the file's size: every count is paid for by bytes that are there."""
    with path.open("rb") as file:
        if path.stat().st_size < 4 + 4 + 8 + 8:
            raise CheckpointError("The file is too short to be GGUF.")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            return _read(_Cursor(mapped))


class _Cursor:
    """A position in the file that cannot pass its end."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.at, self.size = data, 0, len(data)

    def take(self, num_bytes: int, what: str) -> int:
        """Where the next `num_bytes` begin; afterwards the cursor is behind them."""
        start, left = self.at, self.size - self.at
        if num_bytes > left:
            raise CheckpointError(
                f"The file ends inside {what}: {num_bytes} bytes at {start}, {left} are left."
            )
        self.at = start + num_bytes
        return start

    def unpack(self, layout: str, what: str) -> int:
        """A whole number."""
        start = self.take(struct.calcsize(layout), what)
        return int(struct.unpack_from(layout, self.data, start)[0])

    def count(self, smallest: int, what: str) -> int:
        """A count of things of at least `smallest` bytes each."""
        found = self.unpack("<Q", what)
        if found > (self.size - self.at) // smallest:
            raise CheckpointError(
                f"{what} is {found}: more than the file of {self.size} bytes holds."
            )
        return found

    def text(self, what: str, maximum: int | None = None) -> str:
        length = self.count(1, f"the length of {what}")
        if maximum is not None and length > maximum:
            raise CheckpointError(f"{what} is {length} bytes long; at most {maximum} are read.")
        start = self.take(length, what)
        return _decoded(self.data[start : self.at], what)


def _decoded(raw: bytes, what: str) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{what} is not UTF-8: {shown(raw[:40])}.") from error


def _one_line(name: str) -> str:
    """As errors tell it: a name from a hostile file may hold line ends."""
    return name if name.isprintable() else shown(name)


def _read(cursor: _Cursor) -> Header:
    _check_version(cursor)
    num_tensors = cursor.count(SMALLEST_TENSOR, "the number of tensors")
    num_pairs = cursor.count(SMALLEST_PAIR, "the number of metadata entries")
    metadata: dict[str, Value] = {}
    for _ in range(num_pairs):
        key = cursor.text("a metadata key", MAX_NAME)
        if key in metadata:
            raise CheckpointError(f"Metadata {shown(key)} is there twice.")
        metadata[key] = _value(cursor, _one_line(key))
    tensors: dict[str, TensorInfo] = {}
    for _ in range(num_tensors):
        name = cursor.text("a tensor's name", MAX_NAME)
        if name in tensors:
            raise CheckpointError(f"Tensor {shown(name)} is there twice.")
        tensors[name] = _tensor(cursor, _one_line(name))
    alignment = _alignment(metadata)
    data_start = -(-cursor.at // alignment) * alignment
    return Header(metadata, check_places(tensors, data_start, alignment, cursor.size))


def _check_version(cursor: _Cursor) -> None:
    start = cursor.take(4, "the magic")
    if (magic := cursor.data[start : start + 4]) != MAGIC:
        raise CheckpointError(f"The file is not GGUF: it begins with {magic!r}.")
    version = cursor.unpack("<I", "the version")
    if version not in VERSIONS:
        is_swapped = version & 0xFFFF == 0
        raise UnsupportedCheckpoint(
            "The file is big-endian GGUF; this server reads little-endian."
            if is_swapped and version
            else f"GGUF version {version}; this server reads {VERSIONS[0]} and {VERSIONS[1]}."
        )


def _value(cursor: _Cursor, key: str) -> Value:
    kind = cursor.unpack("<I", f"the type of {key}")
    if kind == V.STRING:
        return cursor.text(key)
    if kind == V.ARRAY:
        return _array(cursor, key)
    if kind not in NUMBERS:
        raise CheckpointError(f"Metadata {shown(key)} has type {kind}, which GGUF does not have.")
    value = _numbers(cursor, key, NUMBERS[kind], 1)[0]
    # The converter wrote a config's 1e-5 as float32; the shortest decimal that is that float32 is
    # 1e-5 again.
    found: Value = float(str(value)) if kind == V.FLOAT32 else value.item()
    return found


def _array(cursor: _Cursor, key: str) -> Value:
    kind = cursor.unpack("<I", f"the type of {key}")
    if kind == V.STRING:
        return _strings(cursor, key, cursor.count(8, f"the length of {key}"))
    if kind not in NUMBERS:
        raise CheckpointError(f"Metadata {shown(key)} is an array of type {kind}; none is read.")
    width = NUMBERS[kind].itemsize
    return _numbers(cursor, key, NUMBERS[kind], cursor.count(width, f"the length of {key}"))


def _numbers(cursor: _Cursor, key: str, kind: np.dtype[Any], count: int) -> np.ndarray[Any, Any]:
    start = cursor.take(count * kind.itemsize, key)
    raw = bytearray(cursor.data[start : cursor.at])
    if kind == np.bool_ and max(raw, default=0) > 1:
        raise CheckpointError(f"Metadata {shown(key)} has a boolean that is neither 0 nor 1.")
    return np.frombuffer(raw, kind)


def _strings(cursor: _Cursor, key: str, count: int) -> list[str]:
    """A vocabulary has hundreds of thousands: the loop does only what each string needs."""
    data, at, size = cursor.data, cursor.at, cursor.size
    length_at: Callable[..., tuple[int]] = struct.Struct("<Q").unpack_from
    found: list[str] = []
    try:
        for _ in range(count):
            (length,) = length_at(data, at)
            end = at + 8 + length
            if end > size:
                raise CheckpointError(
                    f"A string of {key} is {length} bytes long; the file ends first."
                )
            found.append(data[at + 8 : end].decode())
            at = end
    except struct.error:
        raise CheckpointError(f"The file ends inside {key}.") from None
    except UnicodeDecodeError as error:
        raise CheckpointError(
            f"A string of {key} is not UTF-8: {shown(error.object[:40])}."
        ) from error
    cursor.at = at
    return found


def _tensor(cursor: _Cursor, name: str) -> TensorInfo:
    num_dimensions = cursor.unpack("<I", f"the dimensions of {name}")
    if not 1 <= num_dimensions <= MAX_DIMENSIONS:
        raise CheckpointError(
            f"{shown(name)} has {num_dimensions} dimensions; 1 to {MAX_DIMENSIONS} are read."
        )
    inner_first = [cursor.unpack("<Q", f"the shape of {name}") for _ in range(num_dimensions)]
    kind = cursor.unpack("<I", f"the type of {name}")
    if kind not in GGMLQuantizationType._value2member_map_:
        raise UnsupportedCheckpoint(f"{shown(name)} has tensor type {kind}, which is not known.")
    stored = GGMLQuantizationType(kind)
    block, block_bytes = GGML_QUANT_SIZES[stored]
    if min(inner_first) < 1 or inner_first[0] % block:
        raise CheckpointError(
            f"{shown(name)} has shape {inner_first[::-1]}; {stored.name} needs rows of {block}s."
        )
    num_bytes = block_bytes
    for size in (inner_first[0] // block, *inner_first[1:]):
        num_bytes *= size
    offset = cursor.unpack("<Q", f"the offset of {name}")
    return TensorInfo(tuple(inner_first[::-1]), stored, offset, num_bytes)


def _alignment(metadata: Mapping[str, Value]) -> int:
    value = metadata.get("general.alignment", 32)
    if isinstance(value, int) and 0 < value <= MAX_ALIGNMENT and value & (value - 1) == 0:
        return value
    raise CheckpointError(f"general.alignment is {shown(value)}; it must be a power of two.")
