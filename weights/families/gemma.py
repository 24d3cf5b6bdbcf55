"""
Gemma 1 and 2. Both scale what is looked up and store norms as the distance from one; the second has
four norms a block, a window in every other layer, and caps scores and logits.
"""

from __future__ import annotations

from typing import Any

from weights.checkpoint import ModelConfig
from weights.families.decoder import (
    LAYER,
    MLP_NAMES,
    WHOLE,
    attention_names,
    decoder_family,
    decoder_shapes,
    for_kinds,
    gated_mlp,
    gguf_names,
    gguf_words,
    head_norms,
    norms,
    projections,
    sizes,
)
from weights.families.family import (
    ACTIVATIONS,
    Activation,
    Change,
    Gguf,
    Shapes,
    every_nth_full,
    full_layers,
    listed_layers,
)
from weights.fields import Fields
from weights.rope import read_rope

LAYERS_OF_27B = 46  # the one size whose queries are scaled by hidden_size / num_heads
# Gemma was trained with the approximation, though its first configs say "gelu".
FIRST_ACTIVATIONS: dict[str, Activation] = {**ACTIVATIONS, "gelu": "gelu_tanh"}
FOUR_NORMS = tuple(
    f"{norm}_layernorm"
    for norm in ("input", "post_attention", "pre_feedforward", "post_feedforward")
)


def first(fields: Fields) -> ModelConfig:
    common = sizes(fields, default_head_dim=256)
    fields.must_be("use_bidirectional_attention", False)
    said = "hidden_activation" if fields.has("hidden_activation") else "hidden_act"
    return ModelConfig(
        **common,
        family="gemma",
        max_position_embeddings=fields.count("max_position_embeddings", 8192),
        norm_eps=fields.positive("rms_norm_eps", 1e-6),
        activation=fields.choice(said, FIRST_ACTIVATIONS, "gelu_pytorch_tanh"),
        attention_scale=common["head_dim"] ** -0.5,
        layer_types=full_layers(common["num_layers"]),
        ropes={"full": read_rope(fields, common["head_dim"])},
        embedding_scale=common["hidden_size"] ** 0.5,
        attention_bias=fields.flag("attention_bias", False),
    )


def second(fields: Fields) -> ModelConfig:
    common = sizes(fields, default_head_dim=256)
    fields.must_be("use_bidirectional_attention", False)
    num_layers = common["num_layers"]
    layer_types = listed_layers(fields, num_layers, every_nth_full(num_layers, 2))
    return ModelConfig(
        **common,
        family="gemma2",
        max_position_embeddings=fields.count("max_position_embeddings", 8192),
        norm_eps=fields.positive("rms_norm_eps", 1e-6),
        activation=fields.choice("hidden_activation", ACTIVATIONS, "gelu_pytorch_tanh"),
        attention_scale=fields.positive("query_pre_attn_scalar", 256) ** -0.5,
        layer_types=layer_types,
        sliding_window=fields.count("sliding_window", 4096),
        ropes=for_kinds(layer_types, read_rope(fields, common["head_dim"])),
        embedding_scale=common["hidden_size"] ** 0.5,
        attention_cap=_cap(fields, "attn_logit_softcapping", 50.0),
        logit_cap=_cap(fields, "final_logit_softcapping", 30.0),
        attention_bias=fields.flag("attention_bias", False),
    )


def _cap(fields: Fields, name: str, default: float) -> float | None:
    """An explicit null is no cap; only a config that is silent means the default."""
    return None if name in fields.raw and not fields.has(name) else fields.positive(name, default)


def first_shapes(config: ModelConfig) -> Shapes:
    layer = norms(config, "input_layernorm", "post_attention_layernorm")
    layer |= projections(config, config.attention_bias) | gated_mlp(config)
    return decoder_shapes(config, layer, ("norm.weight",))


def shapes(config: ModelConfig) -> Shapes:
    layer = norms(config, *FOUR_NORMS)
    layer |= projections(config, config.attention_bias) | gated_mlp(config) | head_norms(config)
    return decoder_shapes(config, layer, ("norm.weight",))


def gguf_first(metadata: Fields, facts: Fields) -> dict[str, Any]:
    return gguf_words(metadata, facts, "gemma") | {
        "rms_norm_eps": metadata.positive("attention.layer_norm_rms_epsilon"),
    }


def gguf_second(metadata: Fields, facts: Fields) -> dict[str, Any]:
    """llama.cpp fixes in code what the file omits: every other layer, the query scale."""
    words = gguf_words(metadata, facts, "gemma2")
    is_27b = words["num_hidden_layers"] == LAYERS_OF_27B
    scalar = words["hidden_size"] // words["num_attention_heads"] if is_27b else words["head_dim"]
    return words | {
        "rms_norm_eps": metadata.positive("attention.layer_norm_rms_epsilon"),
        "sliding_window": metadata.count("attention.sliding_window", 4096),
        "attn_logit_softcapping": metadata.positive("attn_logit_softcapping", 50.0),
        "final_logit_softcapping": metadata.positive("final_logit_softcapping", 30.0),
        "query_pre_attn_scalar": scalar,
    }


def norm_names(**gguf: str) -> dict[str, tuple[str, Change]]:
    """GGUF name without its end -> canonical."""
    return {f"{name}.weight": (f"{LAYER}{to}.weight", "plus_one") for name, to in gguf.items()}


FINAL_NORM: dict[str, tuple[str, Change]] = {
    "output_norm.weight": ("model.norm.weight", "plus_one")
}
FOUR_NORM_NAMES = norm_names(
    attn_norm="input_layernorm",
    post_attention_norm="post_attention_layernorm",
    ffn_norm="pre_feedforward_layernorm",
    post_ffw_norm="post_feedforward_layernorm",
)
FIRST_NAMES = gguf_names(
    attention_names(is_paired=False),
    MLP_NAMES,
    norm_names(attn_norm="input_layernorm", ffn_norm="post_attention_layernorm"),
    whole={**WHOLE, **FINAL_NORM},
)
SECOND_NAMES = gguf_names(
    attention_names(is_paired=False), MLP_NAMES, FOUR_NORM_NAMES, whole={**WHOLE, **FINAL_NORM}
)
FIRST = decoder_family(
    "gemma", "Gemma", first, first_shapes, Gguf("gemma", gguf_first, FIRST_NAMES)
)
SECOND = decoder_family(
    "gemma2", "Gemma2", second, shapes, Gguf("gemma2", gguf_second, SECOND_NAMES)
)
