"""
A checkpoint's tensors as a precision holds them, one at a time, for a file instead of for serving.

The family's own builder asks for them, so that what is written is what would have been served.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from model.assemble import Parts
from model.families import FAMILIES
from model.kernels import TorchKernels
from model.precision import Precision, Role
from weights.checkpoint import Checkpoint
from weights.quant import QuantTensor

Write = Callable[[str, Tensor | QuantTensor], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenParts(Parts):
    """Hands on what it makes, and gives the builder something empty of the same shape."""

    write: Write

    def matrix(self, name: str, role: Role, is_transposed: bool = False) -> Tensor | QuantTensor:
        held = Parts.matrix(self, name, role, is_transposed)
        self.write(name, held)
        if isinstance(held, QuantTensor):
            return QuantTensor(held.kind, held.shape, torch.empty(0, dtype=torch.uint8))
        return torch.empty_like(held, device="meta")

    def vector(self, name: str) -> Tensor:
        held = Parts.vector(self, name)
        self.write(name, held)
        return held


def write_tensors(checkpoint: Checkpoint, precision: Precision, write: Write) -> None:
    """Every tensor once. Raises CheckpointError."""
    parts = WrittenParts(
        tensors=checkpoint.tensors,
        precision=precision,
        kernels=TorchKernels(),
        packed=checkpoint.packed,
        write=write,
    )
    FAMILIES[checkpoint.config.family](checkpoint.config, parts)
