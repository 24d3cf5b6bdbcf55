"""Llama: rotary positions, RMS norms, a gated MLP, grouped key-value heads."""

from __future__ import annotations

from typing import Any

from weights.checkpoint import ModelConfig
from weights.families.decoder import (
    MLP_NAMES,
    attention_names,
    common,
    decoder_family,
    decoder_shapes,
    gated_mlp,
    gguf_names,
    gguf_words,
    has_tensor,
    norms,
    projections,
)
from weights.families.family import Gguf, Shapes, full_layers
from weights.fields import Fields
from weights.rope import read_rope


def config(fields: Fields) -> ModelConfig:
    read = common(fields, context=2048)
    return ModelConfig(
        **read,
        family="llama",
        layer_types=full_layers(read["num_layers"]),
        ropes={"full": read_rope(fields, read["head_dim"])},
        attention_bias=fields.flag("attention_bias", False),
        mlp_bias=fields.flag("mlp_bias", False),
    )


def shapes(config: ModelConfig) -> Shapes:
    layer = norms(config, "input_layernorm", "post_attention_layernorm")
    layer |= projections(config, config.attention_bias) | gated_mlp(config, config.mlp_bias)
    return decoder_shapes(config, layer, ("norm.weight",))


def gguf_config(metadata: Fields, facts: Fields) -> dict[str, Any]:
    if not metadata.has("attention.key_length") and metadata.has("rope.dimension_count"):
        width = metadata.count("rope.dimension_count")
        metadata = Fields({**metadata.raw, "attention.key_length": width}, metadata.source)
    return gguf_words(metadata, facts, "llama") | {
        "rms_norm_eps": metadata.positive("attention.layer_norm_rms_epsilon"),
        "attention_bias": has_tensor(facts, "blk.0.attn_q.bias"),
        "mlp_bias": has_tensor(facts, "blk.0.ffn_up.bias"),
    }


NAMES = gguf_names(attention_names(is_paired=True), MLP_NAMES)
FAMILY = decoder_family("llama", "Llama", config, shapes, Gguf("llama", gguf_config, NAMES))
