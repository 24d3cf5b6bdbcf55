"""A matrix that multiplies, in the precision it is stored in. The transformer cannot see which."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from model.kernels import InputBits, Kernels
from weights.quant import QuantTensor


@dataclass(frozen=True, slots=True)
class Linear:
    weight: Tensor | QuantTensor  # (O,C); a tensor is float32 or bfloat16
    bias: Tensor | None  # (O,), float32
    kernels: Kernels
    input_bits: InputBits = 16  # what x is rounded to where the weight is a QuantTensor

    def __call__(self, x: Tensor, onto: Tensor | None = None) -> Tensor:
        """x (N,C) -> (N,O), added to `onto`; float32, whatever is stored."""
        out = self._product(x)
        return out if onto is None else self.kernels.add(out, onto)

    def _product(self, x: Tensor) -> Tensor:
        if isinstance(self.weight, QuantTensor):
            return self.kernels.quantised(x, self.weight, self.bias, self.input_bits)
        return self.kernels.linear(x, self.weight, self.bias)
