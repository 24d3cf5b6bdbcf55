"""
Cohere's Command R and R7B: one norm a block, without bias, before attention and MLP; scaled logits.
R7B: three layers with a window and rotary positions to each without either.
"""

from __future__ import annotations

from typing import Any

from weights.checkpoint import ModelConfig
from weights.families.decoder import (
    MLP_NAMES,
    QK_NORM_NAMES,
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
from weights.families.family import (
    Gguf,
    Shapes,
    every_nth_full,
    full_layers,
    listed_layers,
)
from weights.fields import Fields
from weights.rope import read_rope


def first(fields: Fields) -> ModelConfig:
    read = _both(fields)
    rope = read_rope(fields, read["head_dim"], default_theta=500_000.0)
    return ModelConfig(
        **read,
        family="cohere",
        layer_types=full_layers(read["num_layers"]),
        ropes={"full": rope},
        has_qk_norm=fields.flag("use_qk_norm", False),
    )


def second(fields: Fields) -> ModelConfig:
    read = _both(fields)
    num_layers = read["num_layers"]
    older = every_nth_full(num_layers, fields.count("sliding_window_pattern", 4))
    fields.must_be("use_qk_norm", False)
    fields.must_be("use_gated_activation", True)
    fields.must_be("use_parallel_block", True)
    return ModelConfig(
        **read,
        family="cohere2",
        layer_types=listed_layers(fields, num_layers, older),
        sliding_window=fields.count("sliding_window", 4096),
        ropes={"sliding": read_rope(fields, read["head_dim"])},
    )


def _both(fields: Fields) -> dict[str, Any]:
    return common(fields, context=8192, eps=("layer_norm_eps", 1e-5)) | {
        "block_order": "parallel",
        "logit_scale": fields.positive("logit_scale", 0.0625),
        "attention_bias": fields.flag("attention_bias", False),
    }


def shapes(config: ModelConfig) -> Shapes:
    D = config.head_dim
    layer = norms(config, "input_layernorm") | gated_mlp(config)
    layer |= projections(config, config.attention_bias)
    if config.has_qk_norm:
        layer |= {
            "self_attn.q_norm.weight": (config.num_heads, D),
            "self_attn.k_norm.weight": (config.num_kv_heads, D),
        }
    return decoder_shapes(config, layer, ("norm.weight",))


def gguf_first(metadata: Fields, facts: Fields) -> dict[str, Any]:
    return _gguf(metadata, facts, "cohere") | {
        "use_qk_norm": has_tensor(facts, "blk.0.attn_q_norm.weight"),
    }


def gguf_second(metadata: Fields, facts: Fields) -> dict[str, Any]:
    """The pattern of four is in llama.cpp's code, not in the file."""
    return _gguf(metadata, facts, "cohere2") | {
        "sliding_window": metadata.count("attention.sliding_window"),
    }


def _gguf(metadata: Fields, facts: Fields, model_type: str) -> dict[str, Any]:
    return gguf_words(metadata, facts, model_type) | {
        "layer_norm_eps": metadata.positive("attention.layer_norm_epsilon"),
        "logit_scale": metadata.positive("logit_scale"),
        "attention_bias": has_tensor(facts, "blk.0.attn_q.bias"),
    }


NAMES = gguf_names(attention_names(is_paired=False), MLP_NAMES, QK_NORM_NAMES)
FIRST = decoder_family("cohere", "Cohere", first, shapes, Gguf("command-r", gguf_first, NAMES))
SECOND = decoder_family("cohere2", "Cohere2", second, shapes, Gguf("cohere2", gguf_second, NAMES))
