"""A matrix that multiplies, in the precision it is stored in. The transformer cannot see which."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from model.kernels import Kernels


@dataclass(frozen=True, slots=True)
class Linear:
    weight: Tensor  # (O,C), float32 or bfloat16
    bias: Tensor | None  # (O,), float32
    kernels: Kernels

    def __call__(self, x: Tensor) -> Tensor:
        """x (N,C) float32 -> (N,O) float32, computed in float32 whatever is stored."""
        return self.kernels.linear(x, self.weight, self.bias)
