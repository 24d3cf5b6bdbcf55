"""SmolLM3: Llama, with every fourth layer blind to positions."""

from __future__ import annotations

from typing import Any

from weights.checkpoint import CheckpointError, LayerType, ModelConfig
from weights.families.decoder import (
    common,
    decoder_family,
    for_kinds,
    gguf_words,
)
from weights.families.family import Gguf
from weights.families.llama import NAMES, shapes
from weights.fields import Fields
from weights.rope import read_rope


def config(fields: Fields) -> ModelConfig:
    read = common(fields, context=32_768)
    fields.must_be("use_sliding_window", False)
    layer_types = _layers(fields, read["num_layers"])
    rope = read_rope(fields, read["head_dim"], default_theta=2_000_000.0)
    return ModelConfig(
        **read,
        family="smollm3",
        layer_types=layer_types,
        ropes=for_kinds(layer_types, rope),
        attention_bias=fields.flag("attention_bias", False),
        mlp_bias=fields.flag("mlp_bias", False),
    )


def _layers(fields: Fields, num_layers: int) -> tuple[LayerType, ...]:
    """no_rope_layers has a 1 for each layer that is rotated, whatever its name says."""
    every = fields.count("no_rope_layer_interval", 4)
    listed = fields.raw.get("no_rope_layers")
    if listed is None:
        listed = [int((i + 1) % every != 0) for i in range(num_layers)]
    is_list = isinstance(listed, list) and len(listed) >= num_layers
    if not is_list or any(flag not in (0, 1) for flag in listed):
        raise CheckpointError(
            f"{fields.source}: no_rope_layers must have a 0 or a 1 for each of {num_layers} layers."
        )
    return tuple("full" if flag else "unrotated" for flag in listed[:num_layers])


def gguf_config(metadata: Fields, facts: Fields) -> dict[str, Any]:
    """llama.cpp has the interval of four in its code; the file does not say it."""
    return gguf_words(metadata, facts, "smollm3") | {
        "rms_norm_eps": metadata.positive("attention.layer_norm_rms_epsilon"),
    }


FAMILY = decoder_family("smollm3", "SmolLM3", config, shapes, Gguf("smollm3", gguf_config, NAMES))
