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
    decoder_shapes,
    gated_mlp,
    gguf_names,
    gguf_words,
    norms,
    projections,
    sizes,
)
from weights.families.family import ACTIVATIONS, Family, Gguf, Shapes, full_layers
from weights.fields import Fields
from weights.rope import read_rope

FIRST_EPS = 1e-5  # in the model's code; its config has none


def first(fields: Fields) -> ModelConfig:
    limit = fields.positive("clip_qkv") if fields.has("clip_qkv") else None
    return ModelConfig(**_common(fields), family="olmo", norm_eps=FIRST_EPS, qkv_limit=limit)


def second(fields: Fields) -> ModelConfig:
    eps = fields.positive("rms_norm_eps", 1e-5)
    return ModelConfig(**_common(fields), family="olmo2", norm_eps=eps, has_qk_norm=True)


def _common(fields: Fields) -> dict[str, Any]:
    common = sizes(fields)
    return common | {
        "max_position_embeddings": fields.count("max_position_embeddings", 2048),
        "activation": fields.choice("hidden_act", ACTIVATIONS, "silu"),
        "attention_scale": common["head_dim"] ** -0.5,
        "layer_types": full_layers(common["num_layers"]),
        "ropes": {"full": read_rope(fields, common["head_dim"])},
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


FIRST = Family(
    name="olmo",
    model_types=("olmo",),
    architectures=("OlmoForCausalLM", "OlmoModel"),
    prefix="model.",
    embedding="model.embed_tokens.weight",
    config=first,
    shapes=first_shapes,
    gguf=Gguf("olmo", gguf_first, gguf_names(attention_names(is_paired=True), MLP_NAMES)),
    ignored=(".rotary_emb.inv_freq",),
)
SECOND = Family(
    name="olmo2",
    model_types=("olmo2",),
    architectures=("Olmo2ForCausalLM", "Olmo2Model"),
    prefix="model.",
    embedding="model.embed_tokens.weight",
    config=second,
    shapes=second_shapes,
    gguf=Gguf(
        "olmo2",
        gguf_second,
        gguf_names(
            attention_names(is_paired=False),
            MLP_NAMES,
            QK_NORM_NAMES,
            both("post_attention_norm", "post_attention_layernorm"),
            both("post_ffw_norm", "post_feedforward_layernorm"),
        ),
    ),
)
