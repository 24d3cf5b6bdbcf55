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

    def __call__(self, x: Tensor, onto: Tensor | None = None) -> Tensor:
        """x (N,C) -> (N,O), added to `onto`; float32, whatever is stored."""
        out = self.kernels.linear(x, self.weight, self.bias)
        return out if onto is None else self.kernels.add(out, onto)
