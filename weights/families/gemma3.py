"""Gemma 3 (text): four norms a block, normed queries and keys, sliding layers, two rotary bases."""

from __future__ import annotations

from typing import Any

from weights.checkpoint import LayerType, ModelConfig
from weights.families.decoder import (
    MLP_NAMES,
    WHOLE,
    attention_names,
    gguf_names,
    gguf_words,
    sizes,
)
from weights.families.family import (
    ACTIVATIONS,
    Family,
    Gguf,
    every_nth_full,
    listed_layers,
)
from weights.families.gemma import FINAL_NORM, FOUR_NORM_NAMES, norm_names, shapes
from weights.fields import Fields
from weights.rope import read_rope

LAYERS_OF_27B = 62  # the one size whose queries are scaled by hidden_size / num_heads


def config(fields: Fields) -> ModelConfig:
    common = sizes(fields, default_head_dim=256)
    width = common["head_dim"]
    fields.must_be("attn_logit_softcapping")
    fields.must_be("final_logit_softcapping")
    fields.must_be("use_bidirectional_attention", False)
    return ModelConfig(
        **common,
        family="gemma3",
        max_position_embeddings=fields.count("max_position_embeddings", 131_072),
        norm_eps=fields.positive("rms_norm_eps", 1e-6),
        activation=fields.choice("hidden_activation", ACTIVATIONS, "gelu_pytorch_tanh"),
        attention_scale=fields.positive("query_pre_attn_scalar", 256) ** -0.5,
        layer_types=_layers(fields, common["num_layers"]),
        sliding_window=fields.count("sliding_window", 4096),
        ropes={
            "full": read_rope(fields, width, layer="full_attention", default_theta=1_000_000.0),
            "sliding": read_rope(
                fields,
                width,
                layer="sliding_attention",
                theta_field="rope_local_base_freq",
                is_scaled=False,
            ),
        },
        embedding_scale=common["hidden_size"] ** 0.5,
        attention_bias=fields.flag("attention_bias", False),
        has_qk_norm=True,
    )


def _layers(fields: Fields, num_layers: int) -> tuple[LayerType, ...]:
    """As listed, else every sixth (or `sliding_window_pattern`-th) layer sees everything."""
    older = "sliding_window_pattern"
    every = fields.count(older if fields.has(older) else "_sliding_window_pattern", 6)
    return listed_layers(fields, num_layers, every_nth_full(num_layers, every))


def gguf_config(metadata: Fields, facts: Fields) -> dict[str, Any]:
    """llama.cpp fixes in code what the file omits: pattern of six, local base, query scale."""
    width = metadata.count("attention.key_length", 256)
    own = Fields({**metadata.raw, "attention.key_length": width}, metadata.source)
    words = gguf_words(own, facts, "gemma3_text")
    is_27b = words["num_hidden_layers"] == LAYERS_OF_27B
    scalar = words["hidden_size"] // words["num_attention_heads"] if is_27b else width
    metadata.must_be("final_logit_softcapping")
    return words | {
        "rms_norm_eps": metadata.positive("attention.layer_norm_rms_epsilon"),
        "rope_theta": metadata.positive("rope.freq_base", 1_000_000.0),
        "rope_local_base_freq": metadata.positive("rope.freq_base_swa", 10_000.0),
        "sliding_window": metadata.count("attention.sliding_window"),
        "sliding_window_pattern": metadata.count("attention.sliding_window_pattern", 6),
        "query_pre_attn_scalar": scalar,
    }


FAMILY = Family(
    name="gemma3",
    model_types=("gemma3_text",),
    architectures=("Gemma3ForCausalLM", "Gemma3TextModel"),
    prefix="model.",
    embedding="model.embed_tokens.weight",
    config=config,
    shapes=shapes,
    gguf=Gguf(
        "gemma3",
        gguf_config,
        gguf_names(
            attention_names(is_paired=False),
            MLP_NAMES,
            FOUR_NORM_NAMES,
            norm_names(attn_q_norm="self_attn.q_norm", attn_k_norm="self_attn.k_norm"),
            whole={**WHOLE, **FINAL_NORM},
        ),
    ),
)
