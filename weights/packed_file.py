"""
A safetensors file of `tiedlm quantize`: matrices in blocks, laid out as kernels read them.

Each is a tensor of bytes under its canonical name; what the bytes mean is in the file's metadata.
The file's data begins on a line of the processor's cache, and so does every matrix in it.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from safetensors import safe_open
from torch import Tensor

from weights.checkpoint import CheckpointError, Rounded, UnsupportedCheckpoint
from weights.fields import Fields, shown
from weights.json_file import parse_object
from weights.quant import KINDS, LINE, Kind, QuantTensor, data_shape

PRECISIONS: Mapping[str, Rounded] = {"int8": "int8", "int4": "int4"}
KEY = "tiedlm"  # of the file's metadata
FORMAT = 1
MAX_AXIS = 1 << 31


@dataclass(frozen=True, slots=True)
class Blocks:
    """What the metadata says of one matrix."""

    kind: Kind
    shape: tuple[int, int]  # outputs, inputs

    def check(self, name: str, dtype: str, stored: tuple[int, ...]) -> None:
        """`stored`, the shape of the bytes, follows from the rest."""
        wanted = data_shape(self.kind, self.shape)
        if dtype != "U8" or stored != wanted:
            raise CheckpointError(
                f"{shown(name)} is {dtype} {stored}; {self.shape} in {self.kind.name} is"
                f" U8 {wanted}."
            )


@dataclass(frozen=True, slots=True)
class Packing:
    """The metadata of one file."""

    precision: Rounded
    blocks: Mapping[str, Blocks]


def read_packing(path: Path) -> Packing | None:
    """None: somebody else's file. Raises CheckpointError; its header must have been checked."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
    if KEY not in metadata:
        return None
    fields = Fields(parse_object(metadata[KEY], f"{path.name}: {KEY}"), f"{path.name}: {KEY}")
    if (version := fields.count("format")) != FORMAT:
        raise UnsupportedCheckpoint(
            f"{path.name} is of format {version}; this server reads format {FORMAT}."
        )
    precision = fields.choice("precision", PRECISIONS)
    tensors = fields.nested("tensors")
    if tensors is None:
        raise fields.error("tensors", "an object")
    return Packing(precision, {name: _blocks(tensors, name) for name in tensors.raw})


def _blocks(tensors: Fields, name: str) -> Blocks:
    entry = tensors.nested(name)
    if entry is None:
        raise tensors.error(name, "an object")
    kind, shape = entry.choice("kind", KINDS), entry.raw.get("shape")
    if not isinstance(shape, list) or len(shape) != 2 or not all(map(_is_axis, shape)):
        raise entry.error("shape", f"two whole numbers from 1 to {MAX_AXIS}")
    return Blocks(kind, (shape[0], shape[1]))


def _is_axis(size: object) -> bool:
    return isinstance(size, int) and not isinstance(size, bool) and 1 <= size <= MAX_AXIS


class PackedFile:
    """
    Written front to back, one tensor at a time. Until it is closed without an error it begins with
    zeros where a header is, which no reader takes for a file.
    """

    def __init__(
        self,
        path: Path,
        precision: Rounded,
        names: Mapping[str, object],
        progress: Callable[[int], object],
    ) -> None:
        """`names`: of every tensor that must come. `progress` is told how many values came."""
        self._path, self._precision, self._progress = path, precision, progress
        self._names = frozenset(names)
        # An entry is its name twice, in the header and in the metadata, where it may be escaped
        # again, and at most 400 characters beside.
        room = 1024 + sum(400 + 12 * len(name) for name in names)
        self._room = -(-room // LINE) * LINE - 8
        self._entries: dict[str, Any] = {}
        self._packed: dict[str, Any] = {}
        self._plain: dict[str, Tensor] = {}  # small; written last, for their sizes are not of lines
        self._end = 0

    def __enter__(self) -> Self:
        self._file = self._path.open("wb")
        self._file.write(bytes(8 + self._room))
        return self

    def add(self, name: str, tensor: Tensor | QuantTensor) -> None:
        if isinstance(tensor, QuantTensor):
            self._packed[name] = {"kind": tensor.kind.name, "shape": tensor.shape}
            self._write(name, "U8", tensor.data)
        else:
            self._plain[name] = tensor.float()
        self._progress(math.prod(tensor.shape))

    def _write(self, name: str, dtype: str, data: Tensor) -> None:
        assert name in self._names
        assert name not in self._entries
        raw = np.ascontiguousarray(data.numpy())
        self._file.write(raw.data)
        self._entries[name] = {
            "dtype": dtype,
            "shape": list(data.shape),
            "data_offsets": [self._end, self._end + raw.nbytes],
        }
        self._end += raw.nbytes

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._file:
            if error is None:
                self._finish()

    def _finish(self) -> None:
        for name, tensor in self._plain.items():
            self._write(name, "F32", tensor)
        assert self._entries.keys() == self._names
        own = {"format": FORMAT, "precision": self._precision, "tensors": self._packed}
        metadata = {"format": "pt", KEY: json.dumps(own)}
        header = json.dumps({"__metadata__": metadata, **self._entries}).encode()
        assert len(header) <= self._room
        self._file.flush()
        os.fsync(self._file.fileno())  # the data is there before the header that promises it
        self._file.seek(0)
        self._file.write(self._room.to_bytes(8, "little") + header.ljust(self._room))
        self._file.flush()
        os.fsync(self._file.fileno())
