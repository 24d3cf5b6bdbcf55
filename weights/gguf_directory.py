"""Where each tensor of a GGUF file lies: inside the file, aligned, on no other's bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from gguf import GGMLQuantizationType

from weights.checkpoint import CheckpointError
from weights.fields import shown


@dataclass(frozen=True, slots=True)
class TensorInfo:
    shape: tuple[int, ...]  # outermost first, as torch has it
    kind: GGMLQuantizationType
    offset: int  # from the start of the file, once checked
    num_bytes: int


def check_places(
    tensors: Mapping[str, TensorInfo], data_start: int, alignment: int, size: int
) -> dict[str, TensorInfo]:
    """With offsets counted from the file's start instead of from `data_start`."""
    placed = {}
    end_of_last = data_start
    for name, info in sorted(tensors.items(), key=lambda item: item[1].offset):
        start, end = data_start + info.offset, data_start + info.offset + info.num_bytes
        if end > size:
            raise CheckpointError(
                f"{shown(name)} needs bytes {start} to {end}; the file has {size} (truncated?)."
            )
        if info.offset % alignment:
            raise CheckpointError(f"{shown(name)} is at offset {info.offset}, not on {alignment}.")
        if start < end_of_last:
            raise CheckpointError(f"{shown(name)} overlaps the tensor before it, at {start}.")
        placed[name], end_of_last = replace(info, offset=start), end
    return placed
