"""What a reader offers once names are canonical: all shapes and types, one tensor at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Protocol

from torch import Tensor

from weights.checkpoint import CheckpointError
from weights.families.family import Family, Shapes
from weights.quant import QuantTensor


class Source(Protocol):
    """Tensors on disk under canonical names."""

    shapes: Mapping[str, tuple[int, ...]]
    types: Mapping[str, str]  # "BF16", "Q4_1", ...
    packable: frozenset[str]  # matrices stored in blocks that a QuantTensor holds without loss

    def num_bytes(self, name: str) -> int: ...

    def read(self, name: str) -> Tensor:
        """A floating-point tensor, every value of it finite."""
        ...

    def read_packed(self, name: str) -> QuantTensor:
        """One of `packable`, every value of it finite; its outputs in the canonical order."""
        ...

    def rows(self, name: str, first: int, last: int) -> Tensor:
        """Rows [first, last) of a matrix, in any type that keeps every value apart."""
        ...


class Tensors(Mapping[str, Tensor]):
    """Checkpoint.tensors: each access reads anew, and nothing is kept."""

    def __init__(self, source: Source, names: tuple[str, ...]) -> None:
        self._source, self._names = source, dict.fromkeys(names)

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        return self._source.read(name)

    def __contains__(self, name: object) -> bool:
        """Without a read, which Mapping's own would make."""
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class Packed(Mapping[str, QuantTensor]):
    """Checkpoint.packed: likewise."""

    def __init__(self, source: Source, names: tuple[str, ...]) -> None:
        self._source = source
        self._names = {name: None for name in names if name in source.packable}

    def __getitem__(self, name: str) -> QuantTensor:
        if name not in self._names:
            raise KeyError(name)
        return self._source.read_packed(name)

    def __contains__(self, name: object) -> bool:
        return name in self._names  # without reading it

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def check_shapes(source: Source, family: Family, needed: Shapes) -> None:
    """Every tensor the family needs, in its shape, and none that it would leave unused."""
    for name, shape in needed.items():
        found = source.shapes.get(name)
        if found is None:
            raise CheckpointError(f"{name} is missing; {family.name} needs it in shape {shape}.")
        if found != shape:
            raise CheckpointError(f"{name} has shape {found}; its config says {shape}.")
    for name in source.shapes:
        if name not in needed and name != family.output and not name.endswith(family.ignored):
            raise CheckpointError(f"{name} is not a tensor that {family.name} uses.")


def stored_types(source: Source, names: tuple[str, ...]) -> dict[str, int]:
    return dict(Counter(source.types[name] for name in names).most_common())
