"""
From a checkpoint's tensors to layers in the precision they are to be held in. The family files are
written with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from model.embedding import TiedEmbedding
from model.kernels import Gate, Kernels
from model.linear import Linear
from model.transformer import Activation


@dataclass(frozen=True, slots=True)
class Parts:
    """Takes each tensor once: a checkpoint reads and dequantises at every access."""

    tensors: Mapping[str, Tensor]
    dtype: torch.dtype  # of matrices; vectors are float32 always
    kernels: Kernels

    def matrix(self, name: str) -> Tensor:
        return self.tensors[name].to(self.dtype).contiguous()

    def vector(self, name: str) -> Tensor:
        return self.tensors[name].to(torch.float32)

    def linear(self, name: str, has_bias: bool = False) -> Linear:
        """`name`.weight is (O,C)."""
        bias = self.vector(f"{name}.bias") if has_bias else None
        return Linear(self.matrix(f"{name}.weight"), bias, self.kernels)

    def conv1d(self, name: str) -> Linear:
        """GPT-2's `Conv1D`: the weight is stored (C,O)."""
        weight = self.tensors[f"{name}.weight"].to(self.dtype).T.contiguous()
        return Linear(weight, self.vector(f"{name}.bias"), self.kernels)

    def embedding(self, name: str, scale: float = 1.0) -> TiedEmbedding:
        return TiedEmbedding(self.matrix(f"{name}.weight"), self.kernels, scale)

    def activation(self, kind: Gate) -> Activation:
        return partial(self.kernels.gate, kind)
