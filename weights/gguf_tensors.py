"""
Tensors of a GGUF file as a Source: canonical names, canonical layout, dequantised in chunks of
rows.

A chunk is read, dequantised and written to its rows of the result. Nothing is memory-mapped, so no
page of the file stays resident, and no matrix ever exists twice.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGMLQuantizationType as Kind
from gguf import quants
from torch import Tensor

from weights.checkpoint import CheckpointError, UnsupportedCheckpoint
from weights.families.family import Change, GgufNames
from weights.gguf_blocks import is_finite, take_apart
from weights.gguf_directory import TensorInfo
from weights.quant import KINDS, TILE, QuantTensor, empty, pack

Array = np.ndarray[Any, Any]

CHUNK_VALUES = (
    1 << 18
)  # 1 MB of float32: the temporaries of dequantising stay in the processor's cache
PLAIN: Mapping[Kind, torch.dtype] = {
    Kind.F32: torch.float32,
    Kind.F16: torch.float16,
    Kind.BF16: torch.bfloat16,
    Kind.F64: torch.float64,
}
BITS: Mapping[
    torch.dtype, type[np.generic]
] = {  # numpy has no bfloat16; moving values needs only their width
    torch.float32: np.float32,
    torch.float16: np.int16,
    torch.bfloat16: np.int16,
    torch.float64: np.float64,
}
PACKED: Mapping[Kind, Any] = {
    kind: getattr(quants, kind.name)
    for kind in Kind
    if kind not in PLAIN and hasattr(getattr(quants, kind.name, None), "dequantize_blocks")
}
EXPONENT = {torch.float16: 0x7C00, torch.bfloat16: 0x7F80}  # all of these bits set: NaN or infinite


REORDERED: tuple[Change, ...] = ("rotary_q", "rotary_k", "grouped")


@dataclass(frozen=True, slots=True)
class Stored:
    """One tensor on disk, and what must be done to it."""

    info: TensorInfo
    change: Change
    heads: int  # that its rows are paired or grouped in, with such a change
    head_dim: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        return self.info.shape[::-1] if self.change == "transposed" else self.info.shape


class GgufSource:
    def __init__(self, path: Path, stored: Mapping[str, Stored]) -> None:
        self._path, self._stored = path, stored
        self.shapes: Mapping[str, tuple[int, ...]] = {
            name: tensor.shape for name, tensor in stored.items()
        }
        self.types: Mapping[str, str] = {
            name: tensor.info.kind.name for name, tensor in stored.items()
        }
        self.packable = frozenset(
            name
            for name, tensor in stored.items()
            if tensor.info.kind.name in KINDS and len(tensor.info.shape) == 2
        )
        for name, tensor in stored.items():
            if tensor.info.kind not in PLAIN and tensor.info.kind not in PACKED:
                raise UnsupportedCheckpoint(f"{name} is stored as {self.types[name]}.")

    def num_bytes(self, name: str) -> int:
        return self._stored[name].info.num_bytes

    def read(self, name: str) -> Tensor:
        """F16 and BF16 stay what they are; a packed type becomes float32."""
        tensor = self._stored[name]
        out = torch.empty(tensor.shape, dtype=PLAIN.get(tensor.info.kind, torch.float32))
        # numpy copies on this thread alone: torch would wake all of its own for every chunk, and
        # wait for the slowest.
        array = out.view(torch.int16).numpy() if out.element_size() == 2 else out.numpy()
        place = _place(array, tensor)
        for first, rows in _chunks(self._path, tensor.info):
            if not _is_finite(rows, out.dtype):
                raise CheckpointError(f"{name} has a value that is NaN or infinite.")
            place(first, rows)
        return out.sub_(1) if tensor.change == "plus_one" else out

    def read_packed(self, name: str) -> QuantTensor:
        tensor = self._stored[name]
        info, kind = tensor.info, KINDS[tensor.info.kind.name]
        packed = empty(kind, (info.shape[0], info.shape[1]))
        for first, raw in _raw_tiles(self._path, tensor):
            rows = take_apart(kind, raw, len(raw))
            if not is_finite(rows):
                raise CheckpointError(f"{name} has a value that is NaN or infinite.")
            pack(packed, first, rows)
        return packed

    def rows(self, name: str, first: int, last: int) -> Tensor:
        """Of a matrix that needs no change: the embedding and the output matrix are such."""
        info = self._stored[name].info
        rows = np.concatenate([rows for _, rows in _chunks(self._path, info, first, last)])
        kind = PLAIN.get(info.kind, torch.float32)
        return torch.from_numpy(rows).view(kind)


def _place(out: Array, tensor: Stored) -> Callable[[int, Array], None]:
    """Where rows [first, first + len(rows)) of the file go in the result."""
    if tensor.change == "transposed":
        return lambda first, rows: _put(out.T, first, rows)
    if tensor.change in REORDERED:
        # A bias is one row of the file, and has a row a value here.
        by_row = out.reshape(len(out), -1)
        order = _order(len(out), tensor)
        return lambda first, rows: _put_rows(by_row, order, first, rows)
    matrix = out.reshape(-1, out.shape[-1])
    return lambda first, rows: _put(matrix, first, rows)


def _put(matrix: Array, first: int, rows: Array) -> None:
    matrix[first : first + len(rows)] = rows


def _put_rows(matrix: Array, order: Array, first: int, rows: Array) -> None:
    rows = rows.reshape(-1, matrix.shape[1])
    matrix[order[first : first + len(rows)]] = rows


def _order(num_rows: int, tensor: Stored) -> Array:
    if tensor.change == "grouped":
        return _groups(num_rows, tensor.heads, tensor.head_dim)
    return _halves(num_rows, tensor.heads)


def _groups(num_rows: int, num_kv_heads: int, head_dim: int) -> Array:
    """
    Canonical row of each row of the file: all queries, then all keys, then all values.

    Two groups of one query, heads of width 1: the file's q q k k v v are rows 0 3 1 4 2 5.
    """
    rows = np.arange(num_rows).reshape(num_kv_heads, -1, head_dim)
    return np.concatenate([part.reshape(-1) for part in (rows[:, :-2], rows[:, -2], rows[:, -1])])


def _halves(num_rows: int, heads: int) -> Array:
    """
    Canonical row of each row of the file, which pairs neighbours.

    One head of width 6: the file's rows 0 1 2 3 4 5 are canonical rows 0 3 1 4 2 5.
    """
    return np.arange(num_rows).reshape(heads, 2, -1).swapaxes(1, 2).reshape(-1)


def _chunks(
    path: Path, info: TensorInfo, first: int = 0, last: int | None = None
) -> Iterator[tuple[int, Array]]:
    """(first row, rows) of the file's own matrix, a vector being one row."""
    width = info.shape[-1]
    num_rows = int(np.prod(info.shape[:-1], dtype=np.int64))
    row_bytes = info.num_bytes // num_rows
    step = max(1, CHUNK_VALUES // width)
    end = num_rows if last is None else last
    with path.open("rb", buffering=0) as file:
        for row in range(first, end, step):
            count = min(step, end - row)
            raw = _read_exactly(file.fileno(), info.offset + row * row_bytes, count * row_bytes)
            yield row, _values(raw, info.kind).reshape(count, width)


def _raw_tiles(path: Path, tensor: Stored) -> Iterator[tuple[int, Array]]:
    """(first row, bytes of each row), whole tiles at a time, in the canonical order of rows."""
    info = tensor.info
    num_rows, row_bytes = info.shape[0], info.num_bytes // info.shape[0]
    step = max(1, CHUNK_VALUES // (TILE * info.shape[1])) * TILE
    is_reordered = tensor.change in REORDERED
    with path.open("rb", buffering=0) as file:

        def read(first: int, last: int) -> Array:
            raw = _read_exactly(
                file.fileno(), info.offset + first * row_bytes, (last - first) * row_bytes
            )
            return raw.reshape(last - first, row_bytes)

        whole = read(0, num_rows)[np.argsort(_order(num_rows, tensor))] if is_reordered else None
        for first in range(0, num_rows, step):
            last = min(first + step, num_rows)
            yield first, read(first, last) if whole is None else whole[first:last]


def _read_exactly(descriptor: int, offset: int, num_bytes: int) -> Array:
    raw = np.empty(num_bytes, np.uint8)
    if os.preadv(descriptor, [raw.data], offset) != num_bytes:
        raise CheckpointError(f"The file became shorter while it was read (at {offset}).")
    return raw


def _values(raw: Array, kind: Kind) -> Array:
    if kind in PLAIN:
        return raw.view(BITS[PLAIN[kind]])
    packed = PACKED[kind]
    packed.init_grid()  # the lattice of an IQ type, made once
    # A scale that overflows shows as NaN or infinity, which _is_finite refuses.
    with np.errstate(all="ignore"):
        values: Array = packed.dequantize_blocks(raw.reshape(-1, packed.type_size))
    return values


def _is_finite(rows: Array, kind: torch.dtype) -> bool:
    """Of values still in the processor's cache: far cheaper than a pass over the whole."""
    if kind in EXPONENT:
        return not ((rows & EXPONENT[kind]) == EXPONENT[kind]).any()
    return bool(np.isfinite(rows.min()) and np.isfinite(rows.max()))  # NaN is both


def canonical(
    tensors: Mapping[str, TensorInfo],
    names: GgufNames,
    heads: Mapping[Change, int],
    head_dim: int = 0,
) -> dict[str, Stored]:
    """Under the family's names; a name it does not have stays, and is refused later."""
    found: dict[str, Stored] = {}
    for name, info in tensors.items():
        place, change = _named(name, names)
        groups = heads.get(change, 1)
        if len(info.shape) > 2:
            raise CheckpointError(f"{name} has shape {info.shape}; a matrix or a vector is needed.")
        if not _divides(info.shape[0], change, groups, head_dim):
            raise CheckpointError(f"{name} has {info.shape[0]} rows for {groups} heads.")
        if change == "stacked":
            rows = enumerate(_rows_apart(info))
            found |= {place.format(row): Stored(part, "none", 1) for row, part in rows}
        else:
            found[place] = Stored(info, change, groups, head_dim)
    return found


def _divides(num_rows: int, change: Change, groups: int, head_dim: int) -> bool:
    if change in ("rotary_q", "rotary_k"):
        return num_rows % (2 * groups) == 0
    if change == "grouped":
        return num_rows % (groups * head_dim) == 0
    return change != "stacked" or num_rows <= groups  # keys may have fewer heads


def _rows_apart(info: TensorInfo) -> Iterator[TensorInfo]:
    num_bytes = info.num_bytes // info.shape[0]
    for row in range(info.shape[0]):
        at = info.offset + row * num_bytes
        yield TensorInfo(info.shape[1:] or (1,), info.kind, at, num_bytes)


def _named(name: str, names: GgufNames) -> tuple[str, Change]:
    prefix, _, rest = name.partition(".")
    layer, _, part = rest.partition(".")
    if prefix == "blk" and layer.isascii() and layer.isdigit() and part in names.block:
        pattern, change = names.block[part]
        return pattern.format(layer), change
    return names.whole.get(name, (name, "none"))
