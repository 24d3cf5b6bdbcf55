"""
What a config says of rotary positions -> Rope. Two spellings: `rope_theta` with `rope_scaling`, and
`rope_parameters`.

Every scaling here is a divisor of each inverse frequency, so a scaled model differs from a plain
one in Rope.factors alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from weights.checkpoint import CheckpointError, Rope
from weights.fields import Fields


def _default(_: Fields, __: float, ___: int) -> None:
    return None


def _linear(scaling: Fields, _: float, dim: int) -> tuple[float, ...]:
    """Position interpolation (Chen et al. 2023): every angle divided by one factor."""
    return (scaling.positive("factor"),) * (dim // 2)


def _llama3(scaling: Fields, theta: float, dim: int) -> tuple[float, ...]:
    """
    Llama 3.1's rule: long waves are divided by `factor`, short ones kept, those between are
    blended.

    With factor 32, low 1, high 4 and 8,192 original positions, a wave of 6.3 positions keeps
    divisor 1, one of 20,000 gets 32, and one of 4,096 (two fit the original context, blend
    (2-1)/(4-1) = 1/3) gets 1/((2/3)/32 + 1/3) = 2.82.
    """
    factor, low = scaling.positive("factor"), scaling.positive("low_freq_factor")
    high = scaling.positive("high_freq_factor")
    original = scaling.count("original_max_position_embeddings")
    if high <= low:
        raise scaling.error("high_freq_factor", f"above low_freq_factor, {low}")
    waves = (2 * math.pi * theta ** (2 * i / dim) for i in range(dim // 2))
    blends = (min(max((original / wave - low) / (high - low), 0.0), 1.0) for wave in waves)
    return tuple(1 / ((1 - blend) / factor + blend) for blend in blends)


def _factors(scaling: Fields, _: float, dim: int) -> tuple[float, ...]:
    """Divisors that a GGUF file carries ready made. No config.json says so."""
    factors = scaling.raw.get("factors")
    listed = factors if isinstance(factors, list) else []
    if len(listed) != dim // 2 or not all(isinstance(f, float) and f > 0 for f in listed):
        raise scaling.error("factors", f"{dim // 2} numbers above 0")
    return tuple(listed)


SCALINGS: Mapping[str, Callable[[Fields, float, int], tuple[float, ...] | None]] = {
    "default": _default,
    "linear": _linear,
    "llama3": _llama3,
    "factors": _factors,
}


def read_rope(
    config: Fields,
    dim: int,
    *,
    layer: str | None = None,
    theta_field: str = "rope_theta",
    default_theta: float = 10_000.0,
    is_scaled: bool = True,
) -> Rope:
    """The rope of a kind of layer. `layer`: its key in a `rope_parameters` of several."""
    if dim % 2:
        raise CheckpointError(f"{config.source}: rotary positions need an even width, not {dim}.")
    theta = config.positive(theta_field, default_theta)
    parameters = config.nested("rope_parameters")
    if parameters is not None and layer is not None:
        parameters.must_be("rope_type")  # one rope for all, where this family has one a kind
        parameters = parameters.nested(layer)
    if parameters is not None:
        return _rope(parameters, parameters.positive("rope_theta", theta), dim)
    scaling = config.nested("rope_scaling") if is_scaled else None
    return Rope(theta, dim) if scaling is None else _rope(scaling, theta, dim)


def _rope(scaling: Fields, theta: float, dim: int) -> Rope:
    scaling.must_be("partial_rotary_factor", 1.0)
    kind = "rope_type" if scaling.has("rope_type") else "type"
    return Rope(theta, dim, scaling.choice(kind, SCALINGS, "default")(scaling, theta, dim))
