"""
From a checkpoint's tensors to layers in the precision they are to be held in. The family files are
written with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from model.embedding import TiedEmbedding
from model.kernels import Gate, InputBits, Kernels
from model.linear import Linear
from model.precision import Precision, Role, input_bits_for, kind_for
from model.transformer import Activation
from weights.quant import QuantTensor
from weights.quantize import quantize

PLAIN: Mapping[Precision, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class Parts:
    """Takes each tensor once: a checkpoint reads and dequantises at every access."""

    tensors: Mapping[str, Tensor]
    precision: Precision  # of matrices; vectors are float32 always
    kernels: Kernels
    packed: Mapping[str, QuantTensor] = field(default_factory=dict)
    mlp_input_bits: InputBits = 16

    def matrix(self, name: str, role: Role, is_transposed: bool = False) -> Tensor | QuantTensor:
        """(O,C), of a tensor that is (C,O) where it `is_transposed`; packed, it never is."""
        is_packed = name in self.packed and self.precision not in PLAIN
        stored = self.packed[name] if is_packed else None
        kind = kind_for(self.precision, role, None if stored is None else stored.kind)
        if stored is not None and kind in (None, stored.kind):
            return stored
        tensor = self.tensors[name].T if is_transposed else self.tensors[name]
        if kind is not None:
            return quantize(tensor, kind)
        return tensor.to(self._dtype(tensor.dtype)).contiguous()

    def _dtype(self, stored: torch.dtype) -> torch.dtype:
        keeps = self.precision == "auto" and stored == torch.bfloat16
        return torch.bfloat16 if keeps else PLAIN.get(self.precision, torch.float32)

    def vector(self, name: str) -> Tensor:
        return self.tensors[name].to(torch.float32)

    def linear(self, name: str, has_bias: bool = False, role: Role = "linear") -> Linear:
        """`name`.weight is (O,C)."""
        bias = self.vector(f"{name}.bias") if has_bias else None
        return self._linear(self.matrix(f"{name}.weight", role), bias, role)

    def conv1d(self, name: str, role: Role = "linear") -> Linear:
        """GPT-2's `Conv1D`: the weight is stored (C,O)."""
        weight = self.matrix(f"{name}.weight", role, is_transposed=True)
        return self._linear(weight, self.vector(f"{name}.bias"), role)

    def _linear(self, weight: Tensor | QuantTensor, bias: Tensor | None, role: Role) -> Linear:
        bits = input_bits_for(self.precision, role, self.mlp_input_bits)
        return Linear(weight, bias, self.kernels, bits)

    def embedding(self, name: str, scale: float = 1.0) -> TiedEmbedding:
        return TiedEmbedding(self.matrix(f"{name}.weight", "table"), self.kernels, scale)

    def activation(self, kind: Gate) -> Activation:
        return partial(self.kernels.gate, kind)
