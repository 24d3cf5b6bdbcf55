"""Phi-3, Phi-4-mini: one matrix for queries, keys and values, one for gate and up, LongRoPE."""

from __future__ import annotations

from typing import Any

from weights.checkpoint import ModelConfig
from weights.families.decoder import (
    attention_names,
    both,
    common,
    decoder_family,
    decoder_shapes,
    for_kinds,
    gguf_names,
    gguf_words,
    norms,
)
from weights.families.family import (
    Gguf,
    Shapes,
    all_sliding,
    full_layers,
    with_biases,
)
from weights.fields import Fields
from weights.rope import contexts, read_rope


def config(fields: Fields) -> ModelConfig:
    read = common(fields, context=4096, eps=("rms_norm_eps", 1e-5))
    has_window = fields.has("sliding_window")
    layer_types = (all_sliding if has_window else full_layers)(read["num_layers"])
    rope = read_rope(_modern(fields), read["head_dim"], partial=1.0)
    context, long_context = contexts(_modern(fields))
    return ModelConfig(
        **read | {"max_position_embeddings": context},
        family="phi3",
        long_context=long_context,
        layer_types=layer_types,
        sliding_window=fields.count("sliding_window") if has_window else None,
        ropes=for_kinds(layer_types, rope),
    )


def _modern(fields: Fields) -> Fields:
    """Phi-3's own scalings are LongRoPE under older names: "su", and what it calls "yarn"."""
    words = dict(fields.raw)
    for name in ("rope_scaling", "rope_parameters"):
        scaling = fields.nested(name)
        for kind in ("type", "rope_type"):
            if scaling is not None and scaling.raw.get(kind) in ("su", "yarn"):
                words[name] = {**scaling.raw, kind: "longrope"}
                scaling = Fields(words[name], fields.source)
    return Fields(words, fields.source)


def shapes(config: ModelConfig) -> Shapes:
    C, F, D = config.hidden_size, config.intermediate_size, config.head_dim
    Q, KV = config.num_heads * D, config.num_kv_heads * D
    matrices = {
        "self_attn.qkv_proj": (Q + 2 * KV, C),
        "self_attn.o_proj": (C, Q),
        "mlp.gate_up_proj": (2 * F, C),
        "mlp.down_proj": (C, F),
    }
    layer = norms(config, "input_layernorm", "post_attention_layernorm")
    return decoder_shapes(config, layer | with_biases(matrices, has_bias=False), ("norm.weight",))


def gguf_config(metadata: Fields, facts: Fields) -> dict[str, Any]:
    return gguf_words(metadata, facts, "phi3") | {
        "rms_norm_eps": metadata.positive("attention.layer_norm_rms_epsilon"),
        "sliding_window": metadata.raw.get("attention.sliding_window") or None,
    }


NAMES = gguf_names(
    attention_names(is_paired=False),
    both("attn_qkv", "self_attn.qkv_proj"),
    both("ffn_norm", "post_attention_layernorm"),
    both("ffn_up", "mlp.gate_up_proj"),
    both("ffn_down", "mlp.down_proj"),
)
FAMILY = decoder_family("phi3", "Phi3", config, shapes, Gguf("phi3", gguf_config, NAMES))
