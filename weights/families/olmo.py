"""
OLMo: norms without weights, queries, keys and values cut to a limit. OLMo 2: RMS norms behind each
branch, queries and keys normed over all heads at once.
"""

from __future__ import annotations

from typing import Any

from weights.checkpoint import ModelConfig
from weights.families.decoder import (
    MLP_NAMES,
    QK_NORM_NAMES,
    attention_names,
    both,
    common,
    decoder_family,
    decoder_shapes,
    gated_mlp,
    gguf_names,
    gguf_words,
    norms,
    projections,
)
from weights.families.family import Gguf, Shapes, full_layers
from weights.fields import Fields
from weights.rope import read_rope

FIRST_EPS = 1e-5  # in the model's code; its config has none


def first(fields: Fields) -> ModelConfig:
    limit = fields.positive("clip_qkv") if fields.has("clip_qkv") else None
    read = _both(fields) | {"norm_eps": FIRST_EPS}
    return ModelConfig(**read, family="olmo", qkv_limit=limit)


def second(fields: Fields) -> ModelConfig:
    return ModelConfig(**_both(fields), family="olmo2", has_qk_norm=True)


def _both(fields: Fields) -> dict[str, Any]:
    read = common(fields, context=2048, eps=("rms_norm_eps", 1e-5))
    return read | {
        "layer_types": full_layers(read["num_layers"]),
        "ropes": {"full": read_rope(fields, read["head_dim"])},
        "attention_bias": fields.flag("attention_bias", False),
    }


def first_shapes(config: ModelConfig) -> Shapes:
    layer = projections(config, config.attention_bias) | gated_mlp(config)
    return decoder_shapes(config, layer, ())


def second_shapes(config: ModelConfig) -> Shapes:
    D = config.head_dim
    layer = norms(config, "post_attention_layernorm", "post_feedforward_layernorm")
    layer |= projections(config, config.attention_bias) | gated_mlp(config)
    layer |= {
        "self_attn.q_norm.weight": (config.num_heads * D,),
        "self_attn.k_norm.weight": (config.num_kv_heads * D,),
    }
    return decoder_shapes(config, layer, ("norm.weight",))


def gguf_first(metadata: Fields, facts: Fields) -> dict[str, Any]:
    metadata.must_be("attention.layer_norm_epsilon", FIRST_EPS)
    return gguf_words(metadata, facts, "olmo") | {
        "clip_qkv": metadata.raw.get("attention.clamp_kqv") or None,
    }


def gguf_second(metadata: Fields, facts: Fields) -> dict[str, Any]:
    metadata.must_be("attention.sliding_window")  # OLMo 3, under the same architecture
    return gguf_words(metadata, facts, "olmo2") | {
        "rms_norm_eps": metadata.positive("attention.layer_norm_rms_epsilon"),
    }


FIRST_NAMES = gguf_names(attention_names(is_paired=True), MLP_NAMES)
SECOND_NAMES = gguf_names(
    attention_names(is_paired=False),
    MLP_NAMES,
    QK_NORM_NAMES,
    both("post_attention_norm", "post_attention_layernorm"),
    both("post_ffw_norm", "post_feedforward_layernorm"),
)
FIRST = decoder_family("olmo", "Olmo", first, first_shapes, Gguf("olmo", gguf_first, FIRST_NAMES))
SECOND = decoder_family(
    "olmo2", "Olmo2", second, second_shapes, Gguf("olmo2", gguf_second, SECOND_NAMES)
)
