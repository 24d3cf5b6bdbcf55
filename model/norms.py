"""
Norms over the channels of a token, or over those of each head; kernels compute them.

N tokens, H heads, D head width, C hidden size. `onto` is what the normed x is added to.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from model.kernels import Kernels


@dataclass(frozen=True, slots=True)
class RMSNorm:
    weight: Tensor  # (C,) or (D,)
    eps: float
    kernels: Kernels

    def __call__(self, x: Tensor, onto: Tensor | None = None) -> Tensor:
        return self.kernels.rms_norm(x, self.weight, self.eps, onto)


@dataclass(frozen=True, slots=True)
class LayerNorm:
    """With weights (H,D) a norm over each head, whose weights are its own."""

    weight: Tensor
    bias: Tensor | None
    eps: float
    kernels: Kernels

    def __call__(self, x: Tensor, onto: Tensor | None = None) -> Tensor:
        return self.kernels.layer_norm(x, self.weight, self.bias, self.eps, onto)


@dataclass(frozen=True, slots=True)
class AllHeadsNorm:
    """One norm over all heads together."""

    norm: RMSNorm

    def __call__(self, x: Tensor) -> Tensor:
        return self.norm(x.flatten(1)).view_as(x)


Norm = RMSNorm | LayerNorm
