"""Llama: rotary positions, RMS norms, a gated MLP, grouped key-value heads."""

from __future__ import annotations

from typing import Any

from weights.checkpoint import ModelConfig
from weights.families.decoder import (
    MLP_NAMES,
    attention_names,
    decoder_shapes,
    gated_mlp,
    gguf_names,
    gguf_words,
    has_tensor,
    norms,
    projections,
    sizes,
)
from weights.families.family import ACTIVATIONS, Family, Gguf, Shapes, full_layers
from weights.fields import Fields
from weights.rope import read_rope


def config(fields: Fields) -> ModelConfig:
    common = sizes(fields)
    return ModelConfig(
        **common,
        family="llama",
        max_position_embeddings=fields.count("max_position_embeddings", 2048),
        norm_eps=fields.positive("rms_norm_eps", 1e-6),
        activation=fields.choice("hidden_act", ACTIVATIONS, "silu"),
        attention_scale=common["head_dim"] ** -0.5,
        layer_types=full_layers(common["num_layers"]),
        ropes={"full": read_rope(fields, common["head_dim"])},
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


FAMILY = Family(
    name="llama",
    model_types=("llama",),
    architectures=("LlamaForCausalLM", "LlamaModel"),
    prefix="model.",
    embedding="model.embed_tokens.weight",
    config=config,
    shapes=shapes,
    gguf=Gguf("llama", gguf_config, gguf_names(attention_names(is_paired=True), MLP_NAMES)),
    ignored=(".rotary_emb.inv_freq",),
)
