"""A matrix that multiplies, in the precision it is stored in. The transformer cannot see which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.kernels import InputBits, Kernels
from weights.quant import Kind, QuantTensor


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

    @property
    def matrix(self) -> tuple[torch.dtype | Kind, InputBits]:
        """Layers that agree in this can read one x as one job."""
        weight = self.weight
        return weight.kind if isinstance(weight, QuantTensor) else weight.dtype, self.input_bits


def together(layers: Sequence[Linear], x: Tensor) -> list[Tensor]:
    """What each layer makes of x, in their order; those of one kind of matrix as one job."""
    alike: dict[object, list[Linear]] = {}
    for layer in layers:
        alike.setdefault(layer.matrix, []).append(layer)
    found: dict[int, Tensor] = {}
    for group in alike.values():
        found |= zip(map(id, group), _products(group, x), strict=True)
    return [found[id(layer)] for layer in layers]


def _products(layers: Sequence[Linear], x: Tensor) -> tuple[Tensor, ...]:
    first, kernels = layers[0], layers[0].kernels
    packed = [(each.weight, each.bias) for each in layers if isinstance(each.weight, QuantTensor)]
    if packed:
        return kernels.quantised_linears(x, packed, first.input_bits)
    plain = [(each.weight, each.bias) for each in layers if isinstance(each.weight, Tensor)]
    return kernels.linears(x, plain)
