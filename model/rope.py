"""Rotary positions (Su et al. 2021), in the half-split layout of Hugging Face's checkpoints."""

from __future__ import annotations

import torch
from torch import Tensor

from weights.checkpoint import Rope


def inverse_frequencies(rope: Rope) -> Tensor:
    """-> (dim/2,) float32: radians a position."""
    exponents = torch.arange(0, rope.dim, 2, dtype=torch.float32) / rope.dim
    frequencies = 1.0 / rope.theta**exponents
    return frequencies if rope.factors is None else frequencies / torch.tensor(rope.factors)


def angles(positions: Tensor, frequencies: Tensor, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """
    positions (N,), frequencies (D/2,) -> cosines and sines, each (N,1,D/2), one for all heads.
    """
    radians = positions.float()[:, None, None] * frequencies
    if scale == 1.0:
        return radians.cos(), radians.sin()
    return radians.cos() * scale, radians.sin() * scale


def rotate(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """
    x (N,H,D), cosines and sines (N,1,R/2) -> (N,H,D). The first R of D are rotated, the rest pass.
    """
    half = cosines.shape[-1]
    a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return torch.cat((a * cosines - b * sines, b * cosines + a * sines, rest), dim=-1)


def rotate_neighbours(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """The same for heads that pair (0,1)(2,3) instead of halves."""
    width = 2 * cosines.shape[-1]
    a, b, rest = x[..., :width:2], x[..., 1:width:2], x[..., width:]
    turned = torch.stack((a * cosines - b * sines, b * cosines + a * sines), dim=-1)
    return torch.cat((turned.flatten(-2), rest), dim=-1)
