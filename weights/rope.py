"""
What a config says of rotary positions -> Rope. Two spellings: `rope_theta` with `rope_scaling`, and
`rope_parameters`.

Every scaling here is a divisor of each inverse frequency, for some also a factor on cosines and
sines: a scaled model differs from a plain one in Rope.factors and Rope.scale alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

from weights.checkpoint import CheckpointError, ModelConfig, Rope
from weights.fields import Fields


def _default(_: Fields, theta: float, dim: int) -> Rope:
    return Rope(theta, dim)


def _linear(scaling: Fields, theta: float, dim: int) -> Rope:
    """Position interpolation (Chen et al. 2023): every angle divided by one factor."""
    return Rope(theta, dim, (scaling.positive("factor"),) * (dim // 2))


def _llama3(scaling: Fields, theta: float, dim: int) -> Rope:
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
    return Rope(theta, dim, tuple(1 / ((1 - blend) / factor + blend) for blend in blends))


def _yarn(scaling: Fields, theta: float, dim: int) -> Rope:
    """
    YaRN (Peng et al. 2023): between the dimensions that turn `beta_fast` and `beta_slow` times in
    the original context, a ramp from kept to divided by `factor`.
    """
    factor, original = scaling.positive("factor"), _original(scaling)
    if theta <= 1:
        raise CheckpointError(f"{scaling.source}: rope_theta must be above 1, not {theta}.")
    fast, slow = scaling.positive("beta_fast", 32.0), scaling.positive("beta_slow", 1.0)
    low, high = (
        dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(theta))
        for turns in (fast, slow)
    )
    if scaling.flag("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    width = max(high - low, 0.001)
    ramps = (min(max((i - low) / width, 0.0), 1.0) for i in range(dim // 2))
    factors = tuple(1 / (ramp / factor + 1 - ramp) for ramp in ramps)
    return Rope(theta, dim, factors, _yarn_scale(scaling, factor))


def _yarn_scale(scaling: Fields, factor: float) -> float:
    def grown(by: float) -> float:
        return 0.1 * by * math.log(factor) + 1.0 if factor > 1 else 1.0

    if scaling.has("attention_factor"):
        return scaling.positive("attention_factor")
    if scaling.has("mscale") and scaling.has("mscale_all_dim"):
        return grown(scaling.positive("mscale")) / grown(scaling.positive("mscale_all_dim"))
    return grown(1.0)


def _longrope(scaling: Fields, theta: float, dim: int) -> Rope:
    """
    LongRoPE (Ding et al. 2024): divisors for texts up to the original context, and others for
    longer ones. What is cached under one set cannot be looked at under the other, so a model is
    served with one of them (see `for_context`).
    """
    original = _original(scaling)
    factor = scaling.positive(
        "factor", scaling.count("max_position_embeddings", original) / original
    )
    grown = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
    scale = scaling.positive("attention_factor", grown)
    short, long = (_divisors(scaling, f"{name}_factor", dim) for name in ("short", "long"))
    return Rope(theta, dim, short, scale, long)


def _factors(scaling: Fields, theta: float, dim: int) -> Rope:
    """Divisors that a GGUF file carries ready made. No config.json says so."""
    return Rope(theta, dim, _divisors(scaling, "factors", dim))


def _divisors(scaling: Fields, name: str, dim: int) -> tuple[float, ...]:
    value = scaling.raw.get(name)
    listed = value if isinstance(value, list) else []
    is_number = (isinstance(f, (int, float)) and not isinstance(f, bool) for f in listed)
    if len(listed) != dim // 2 or not all(is_number) or not all(0 < f <= 1e30 for f in listed):
        raise scaling.error(name, f"{dim // 2} numbers above 0")
    return tuple(map(float, listed))


def _original(scaling: Fields) -> int:
    original = scaling.count("original_max_position_embeddings")
    if original < 2:
        raise scaling.error("original_max_position_embeddings", "above 1")
    return original


SCALINGS: Mapping[str, Callable[[Fields, float, int], Rope]] = {
    "default": _default,
    "linear": _linear,
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope,
    "factors": _factors,
}
OF_CONFIG = ("original_max_position_embeddings", "max_position_embeddings")


def contexts(config: Fields) -> tuple[int, int | None]:
    """Positions that can be served, with LongRoPE's first set of divisors and with its second."""
    context = config.count("max_position_embeddings")
    scaling = _scaling(config)
    if scaling is None or scaling.raw.get(_kind(scaling)) != "longrope":
        return context, None
    original = _original(scaling)
    return (original, context) if original < context else (context, None)


def for_context(config: ModelConfig, context: int | None) -> ModelConfig:
    """The same model with its long divisors where `context` is beyond its short ones."""
    if config.long_context is None or (context or 0) <= config.max_position_embeddings:
        return config
    ropes = {
        kind: replace(rope, factors=rope.long_factors, long_factors=None)
        for kind, rope in config.ropes.items()
    }
    return replace(
        config, ropes=ropes, max_position_embeddings=config.long_context, long_context=None
    )


def read_rope(
    config: Fields,
    dim: int,
    *,
    layer: str | None = None,
    theta_field: str = "rope_theta",
    default_theta: float = 10_000.0,
    is_scaled: bool = True,
    partial: float | None = None,
) -> Rope:
    """
    The rope of a kind of layer, for heads `dim` wide. `layer`: its key in a `rope_parameters` of
    several. `partial`: what part of a head is rotated where the config is silent; None: all of it,
    whatever the family's config says elsewhere.
    """
    dim = _rotated(config, dim, partial)
    theta = config.positive(theta_field, default_theta)
    parameters = _scaling(config) if config.has("rope_parameters") else None
    if parameters is not None and layer is not None:
        parameters.must_be("rope_type")  # one rope for all, where this family has one a kind
        parameters = parameters.nested(layer)
    if parameters is not None:
        theta = parameters.positive("rope_theta", theta)
    scaling = parameters or (_scaling(config) if is_scaled else None)
    if scaling is None:
        return Rope(theta, dim)
    if partial is None:
        scaling.must_be("partial_rotary_factor", 1.0)
    return scaling.choice(_kind(scaling), SCALINGS, "default")(scaling, theta, dim)


def _scaling(config: Fields) -> Fields | None:
    """With what some configs say beside it instead of in it."""
    name = "rope_parameters" if config.has("rope_parameters") else "rope_scaling"
    scaling = config.nested(name)
    if scaling is None:
        return None
    beside = {key: config.raw[key] for key in OF_CONFIG if config.has(key)}
    return Fields({**beside, **scaling.raw}, scaling.source)


def _kind(scaling: Fields) -> str:
    return "rope_type" if scaling.has("rope_type") else "type"


def _rotated(config: Fields, width: int, partial: float | None) -> int:
    """The even part of a head that is rotated; int() as transformers has it."""
    if partial is None:
        config.must_be("partial_rotary_factor", 1.0)
    else:
        partial = config.positive("partial_rotary_factor", partial)
        parameters = config.nested("rope_parameters")
        if parameters is not None:
            partial = parameters.positive("partial_rotary_factor", partial)
    # A GGUF file's dimension count was divided by the width: what came of it may end in ...9.
    dim = int(width * (1.0 if partial is None else partial) + 1e-6)
    if dim % 2 or not 0 < dim <= width:
        raise CheckpointError(
            f"{config.source}: rotary positions need an even width, not {dim} of {width}."
        )
    return dim
