"""Qwen 2: biases on queries, keys and values. Qwen 3: normed queries and keys instead."""

from __future__ import annotations

from typing import Any

from weights.checkpoint import LayerType, ModelConfig
from weights.families.decoder import (
    MLP_NAMES,
    QK_NORM_NAMES,
    attention_names,
    common,
    decoder_family,
    decoder_shapes,
    for_kinds,
    gated_mlp,
    gguf_names,
    gguf_words,
    has_tensor,
    head_norms,
    norms,
    projections,
)
from weights.families.family import (
    Gguf,
    Shapes,
    all_sliding,
    full_layers,
    listed_layers,
)
from weights.fields import Fields
from weights.rope import read_rope


def second(fields: Fields) -> ModelConfig:
    return ModelConfig(**_both(fields, None), family="qwen2", attention_bias=True)


def third(fields: Fields) -> ModelConfig:
    return ModelConfig(
        **_both(fields, default_head_dim=128),
        family="qwen3",
        attention_bias=fields.flag("attention_bias", False),
        has_qk_norm=True,
    )


def _both(fields: Fields, default_head_dim: int | None) -> dict[str, Any]:
    read = common(fields, context=32_768, default_head_dim=default_head_dim)
    layer_types = _layers(fields, read["num_layers"])
    return read | {
        "layer_types": layer_types,
        "sliding_window": fields.count("sliding_window", 4096),
        "ropes": for_kinds(layer_types, read_rope(fields, read["head_dim"])),
    }


def _layers(fields: Fields, num_layers: int) -> tuple[LayerType, ...]:
    """`sliding_window` is written also where no layer has one: use_sliding_window decides."""
    if not fields.flag("use_sliding_window", False):
        return full_layers(num_layers)
    first = fields.count("max_window_layers", 28)
    default = all_sliding(num_layers)[first:]
    return listed_layers(fields, num_layers, full_layers(num_layers - len(default)) + default)


def shapes(config: ModelConfig) -> Shapes:
    layer = norms(config, "input_layernorm", "post_attention_layernorm")
    # Qwen 3's own bias, where it has one, is on the output as well.
    layer |= projections(
        config, config.attention_bias, config.attention_bias and config.has_qk_norm
    )
    layer |= head_norms(config) | gated_mlp(config)
    return decoder_shapes(config, layer, ("norm.weight",))


def gguf_second(metadata: Fields, facts: Fields) -> dict[str, Any]:
    return gguf_words(metadata, facts, "qwen2") | {
        "rms_norm_eps": metadata.positive("attention.layer_norm_rms_epsilon"),
    }


def gguf_third(metadata: Fields, facts: Fields) -> dict[str, Any]:
    return gguf_words(metadata, facts, "qwen3") | {
        "rms_norm_eps": metadata.positive("attention.layer_norm_rms_epsilon"),
        "attention_bias": has_tensor(facts, "blk.0.attn_q.bias"),
    }


NAMES = gguf_names(attention_names(is_paired=False), MLP_NAMES, QK_NORM_NAMES)

SECOND = decoder_family("qwen2", "Qwen2", second, shapes, Gguf("qwen2", gguf_second, NAMES))
THIRD = decoder_family("qwen3", "Qwen3", third, shapes, Gguf("qwen3", gguf_third, NAMES))
