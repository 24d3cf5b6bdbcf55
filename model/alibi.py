"""Attention with linear biases, ALiBi (Press et al. 2022): its slopes, and Falcon's rounding."""

from __future__ import annotations

import torch
from torch import Tensor


def slopes(num_heads: int, max_bias: float) -> Tensor:
    """
    -> (H,) float32: a geometric series that ends at 2**-max_bias.

    Between powers of two, every other slope of the next larger series follows: 3 heads with
    max_bias 8 have 2**-4, 2**-8 and 2**-2.
    """
    whole = 1 << (num_heads.bit_length() - 1)
    exponents = [max_bias * i / whole for i in range(1, whole + 1)]
    exponents += [max_bias * i / (2 * whole) for i in range(1, 2 * whole, 2)]
    return 2.0 ** -torch.tensor(exponents[:num_heads], dtype=torch.float32)


def coarse(slopes: Tensor, positions: Tensor) -> Tensor:
    """
    slopes (H,), positions (...,S) -> (...,H,S) float32: what Falcon adds to the product of a query
    with the key at a position. Its authors' code multiplies and rounds in bfloat16, so that keys
    256 and 257 have one bias, and the model was trained with it.
    """
    return (slopes.bfloat16()[:, None] * positions.bfloat16()[..., None, :]).float()
