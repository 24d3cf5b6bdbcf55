"""A folder that `tiedlm quantize` wrote as a Source: matrices in blocks, served from the file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from weights.checkpoint import CheckpointError, Rounded
from weights.families.family import Family
from weights.fields import shown
from weights.hf_tensors import SafetensorsSource
from weights.packed_file import Blocks, read_packing
from weights.quant import QuantTensor, data_shape, dequantize, is_finite
from weights.source import Source


class PackedSource:
    """
    One mapping of the file lies under all its matrices: a page of it is resident once it is used.
    """

    def __init__(
        self, path: Path, plain: SafetensorsSource, blocks: Mapping[str, Blocks], family: Family
    ) -> None:
        self._plain, self._blocks = plain, blocks
        # GPT-2's matrices are canonically (inputs, outputs).
        self._transposed = {n for n in blocks if family.is_conv1d and n != family.embedding}
        for name, entry in blocks.items():
            if name not in plain.shapes:
                raise CheckpointError(f"{shown(name)} has blocks, but is not in {path.name}.")
            entry.check(name, plain.types[name], plain.shapes[name])
        self.packable = frozenset(blocks)
        self.shapes: Mapping[str, tuple[int, ...]] = {
            **plain.shapes,
            **{n: self._canonical(n) for n in blocks},
        }
        self.types: Mapping[str, str] = {
            **plain.types,
            **{n: entry.kind.name for n, entry in blocks.items()},
        }
        self._file: Any = safe_open(path, "pt")

    def _canonical(self, name: str) -> tuple[int, int]:
        outputs, inputs = self._blocks[name].shape
        return (inputs, outputs) if name in self._transposed else (outputs, inputs)

    def num_bytes(self, name: str) -> int:
        if name not in self._blocks:
            return self._plain.num_bytes(name)
        entry = self._blocks[name]
        num_tiles, tile_bytes = data_shape(entry.kind, entry.shape)
        return num_tiles * tile_bytes

    def read(self, name: str) -> Tensor:
        if name not in self._blocks:
            return self._plain.read(name)
        values = dequantize(self.read_packed(name))
        return values.T if name in self._transposed else values

    def read_packed(self, name: str) -> QuantTensor:
        tensor = self._mapped(name)
        if not is_finite(tensor):
            raise CheckpointError(f"{name} has a value that is NaN or infinite.")
        return tensor

    def rows(self, name: str, first: int, last: int) -> Tensor:
        if name not in self._blocks:
            return self._plain.rows(name, first, last)
        return dequantize(self._mapped(name), first, last)

    def _mapped(self, name: str) -> QuantTensor:
        entry = self._blocks[name]
        data: Tensor = self._file.get_tensor(name)
        return QuantTensor(entry.kind, entry.shape, data)


def open_source(
    files: tuple[Path, ...], family: Family, needed: Mapping[str, object]
) -> tuple[Source, Rounded | None]:
    """
    -> the source, and the precision `tiedlm quantize` was asked for. It writes one file; of other
    software's, the tensors `needed` are checked to be of types that are read.
    """
    plain = SafetensorsSource(files, family)
    packing = read_packing(files[0]) if len(files) == 1 else None
    plain.check_types({n: None for n in needed if packing is None or n not in packing.blocks})
    if packing is None:
        return plain, None
    return PackedSource(files[0], plain, packing.blocks, family), packing.precision
