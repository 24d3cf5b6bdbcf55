"""The *.safetensors of a folder, one or an index of shards, as a Source. Nothing unpickles."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from weights.checkpoint import CheckpointError, UnsupportedCheckpoint
from weights.families.family import Family
from weights.fields import shown
from weights.json_file import read_object
from weights.quant import QuantTensor

BYTES = {"F32": 4, "F16": 2, "BF16": 2, "F64": 8}
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


class _Place(NamedTuple):
    path: Path
    shape: tuple[int, ...]
    kind: str


class SafetensorsSource:
    """
    Memory-mapped: a float32 tensor taken from here is the file's pages, not a copy of them.

    Every read maps its file anew, so that a tensor that is converted and dropped takes its pages
    with it.
    """

    def __init__(self, files: tuple[Path, ...], family: Family) -> None:
        found = _all_listed(files)
        has_prefix = any(name.startswith(family.prefix) for name in found)
        self._places = {
            name if has_prefix or name == family.output else family.prefix + name: (place, name)
            for name, place in found.items()
        }
        self.shapes: Mapping[str, tuple[int, ...]] = {
            name: place.shape for name, (place, _) in self._places.items()
        }
        self.types: Mapping[str, str] = {
            name: place.kind for name, (place, _) in self._places.items()
        }

        self.packable: frozenset[str] = frozenset()

    def read_packed(self, name: str) -> QuantTensor:
        raise KeyError(name)

    def num_bytes(self, name: str) -> int:
        return torch.Size(self.shapes[name]).numel() * BYTES[self.types[name]]

    def check_types(self, names: Mapping[str, object]) -> None:
        for name in names:
            if (kind := self.types.get(name, "F32")) not in BYTES:
                raise UnsupportedCheckpoint(
                    f"{name} is stored as {kind}; this server reads {', '.join(BYTES)}."
                )

    def read(self, name: str) -> Tensor:
        place, stored = self._places[name]
        with safe_open(place.path, "pt") as file:
            tensor: Tensor = file.get_tensor(stored)
        # One pass without a temporary: a NaN anywhere makes both ends NaN.
        low, high = torch.aminmax(tensor)
        if not (torch.isfinite(low) and torch.isfinite(high)):
            raise CheckpointError(f"{name} has a value that is NaN or infinite.")
        return tensor

    def rows(self, name: str, first: int, last: int) -> Tensor:
        place, stored = self._places[name]
        with safe_open(place.path, "pt") as file:
            rows: Tensor = file.get_slice(stored)[first:last]
        return rows


def _all_listed(files: tuple[Path, ...]) -> dict[str, _Place]:
    found: dict[str, _Place] = {}
    for path in files:
        for name, place in _listed(path):
            if name in found:
                raise CheckpointError(f"{path.name}: {shown(name)} is also in another shard.")
            found[name] = place
    return found


def _listed(path: Path) -> list[tuple[str, _Place]]:
    """Every tensor. The library checks header, offsets and sizes against the file."""
    try:
        path.open("rb").close()  # what may not be read the library calls absent
        with safe_open(path, "pt") as file:
            slices = ((name, file.get_slice(name)) for name in file.keys())  # noqa: SIM118
            return [
                (name, _Place(path, tuple(s.get_shape()), str(s.get_dtype()))) for name, s in slices
            ]
    except (SafetensorError, OSError, ValueError) as error:
        reason = str(error).removeprefix("Error while deserializing header: ")[:200]
        raise CheckpointError(f"{path.name} is not a readable safetensors file: {reason}") from None


def weight_files(folder: Path) -> tuple[Path, ...]:
    """model.safetensors, or the shards its index names, all inside the folder."""
    if (folder / SINGLE).is_file():
        return (folder / SINGLE,)
    if not (folder / INDEX).is_file():
        raise CheckpointError(f"{folder} has neither {SINGLE} nor {INDEX}{_pickles(folder)}.")
    weight_map = read_object(folder / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{INDEX} has no weight_map.")
    return tuple(folder / name for name in _shard_names(folder, weight_map))


def _shard_names(folder: Path, weight_map: dict[str, object]) -> list[str]:
    names: set[str] = set()
    for name in weight_map.values():
        # A name with a folder in it could reach files that are not the checkpoint's.
        if not isinstance(name, str) or Path(name).name != name or not name:
            raise CheckpointError(f"{INDEX} names the shard {shown(name)}.")
        names.add(name)
    there = {path.name for path in folder.iterdir() if path.is_file()}
    for name in sorted(names):
        if name not in there:  # asked for, a name may be one that no system takes
            raise CheckpointError(f"{INDEX} names {shown(name)}, which is not in the folder.")
    return sorted(names)


def _pickles(folder: Path) -> str:
    has_pickle = any(folder.glob("*.bin")) or any(folder.glob("*.pt*"))
    return "; pickled weights are never read, convert them to safetensors" if has_pickle else ""
