"""Gemma 3 (text): four norms a block, normed queries and keys, sliding layers, two rotary bases."""

from __future__ import annotations

from typing import Any

from weights.checkpoint import CheckpointError, LayerType, ModelConfig, UnsupportedCheckpoint
from weights.families.family import (
    ACTIVATIONS,
    Family,
    Gguf,
    GgufNames,
    Shapes,
    check_groups,
    head_dim,
)
from weights.fields import MAX_COUNT, Fields, shown
from weights.rope import read_rope

LAYER_TYPES: dict[str, LayerType] = {"full_attention": "full", "sliding_attention": "sliding"}
LAYERS_OF_27B = 62  # the one size whose queries are scaled by hidden_size / num_heads


def config(fields: Fields) -> ModelConfig:
    hidden_size = fields.count("hidden_size")
    num_heads = fields.count("num_attention_heads")
    num_kv_heads = fields.count("num_key_value_heads")
    num_layers = fields.count("num_hidden_layers", maximum=4096)
    check_groups(fields, num_heads, num_kv_heads)
    width = head_dim(fields, hidden_size, num_heads)
    fields.must_be("attn_logit_softcapping")
    fields.must_be("final_logit_softcapping")
    fields.must_be("use_bidirectional_attention", False)
    return ModelConfig(
        family="gemma3",
        vocab_size=fields.count("vocab_size"),
        hidden_size=hidden_size,
        intermediate_size=fields.count("intermediate_size"),
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=width,
        max_position_embeddings=fields.count("max_position_embeddings", 131_072),
        norm_eps=fields.positive("rms_norm_eps", 1e-6),
        activation=fields.choice("hidden_activation", ACTIVATIONS, "gelu_pytorch_tanh"),
        attention_scale=fields.positive("query_pre_attn_scalar", 256) ** -0.5,
        layer_types=_layer_types(fields, num_layers),
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
        embedding_scale=hidden_size**0.5,
        attention_bias=fields.flag("attention_bias", False),
    )


def _layer_types(fields: Fields, num_layers: int) -> tuple[LayerType, ...]:
    """As listed, else every sixth (or `sliding_window_pattern`-th) layer sees everything."""
    listed = fields.raw.get("layer_types")
    if listed is None:
        older = "sliding_window_pattern"
        every = fields.count(older if fields.has(older) else "_sliding_window_pattern", 6)
        return tuple("sliding" if (i + 1) % every else "full" for i in range(num_layers))
    if not isinstance(listed, list) or len(listed) != num_layers:
        raise CheckpointError(f"{fields.source}: layer_types must list {num_layers} layers.")
    for kind in listed:
        if not isinstance(kind, str) or kind not in LAYER_TYPES:
            raise UnsupportedCheckpoint(f"{fields.source}: layer_types has {shown(kind)}.")
    return tuple(LAYER_TYPES[kind] for kind in listed)


def shapes(config: ModelConfig) -> Shapes:
    C, F, D = config.hidden_size, config.intermediate_size, config.head_dim
    Q, KV = config.num_heads * D, config.num_kv_heads * D
    norms = ("input", "post_attention", "pre_feedforward", "post_feedforward")
    matrices = {"q_proj": (Q, C), "k_proj": (KV, C), "v_proj": (KV, C), "o_proj": (C, Q)}
    named: Shapes = {"model.embed_tokens.weight": (config.vocab_size, C), "model.norm.weight": (C,)}
    for layer in (f"model.layers.{i}" for i in range(config.num_layers)):
        named |= {f"{layer}.{norm}_layernorm.weight": (C,) for norm in norms}
        named |= {f"{layer}.self_attn.{norm}.weight": (D,) for norm in ("q_norm", "k_norm")}
        for name, shape in matrices.items():
            named[f"{layer}.self_attn.{name}.weight"] = shape
            if config.attention_bias:
                named[f"{layer}.self_attn.{name}.bias"] = shape[:1]
        named |= {f"{layer}.mlp.{name}.weight": (F, C) for name in ("gate_proj", "up_proj")}
        named[f"{layer}.mlp.down_proj.weight"] = (C, F)
    return named


def gguf_config(metadata: Fields, facts: Fields) -> dict[str, Any]:
    """llama.cpp fixes in code what the file omits: pattern of six, local base, query scale."""
    width = metadata.count("attention.key_length", 256)
    hidden_size, num_heads = (
        metadata.count("embedding_length"),
        metadata.count("attention.head_count"),
    )
    num_layers = metadata.count("block_count")
    metadata.must_be("attention.value_length", width)
    metadata.must_be("final_logit_softcapping")
    return {
        "model_type": "gemma3_text",
        "vocab_size": facts.raw["vocab_size"],
        "hidden_size": hidden_size,
        "intermediate_size": metadata.count("feed_forward_length"),
        "num_hidden_layers": num_layers,
        "num_attention_heads": num_heads,
        "num_key_value_heads": metadata.count("attention.head_count_kv", num_heads),
        "head_dim": width,
        "max_position_embeddings": metadata.count("context_length", MAX_COUNT),
        "rms_norm_eps": metadata.positive("attention.layer_norm_rms_epsilon"),
        "rope_theta": metadata.positive("rope.freq_base", 1_000_000.0),
        "rope_scaling": facts.raw.get("rope_scaling"),
        "rope_local_base_freq": metadata.positive("rope.freq_base_swa", 10_000.0),
        "sliding_window": metadata.count("attention.sliding_window"),
        "sliding_window_pattern": metadata.count("attention.sliding_window_pattern", 6),
        "query_pre_attn_scalar": hidden_size // num_heads if num_layers == LAYERS_OF_27B else width,
    }


GGUF_NAMES = GgufNames(
    whole={
        "token_embd.weight": ("model.embed_tokens.weight", "none"),
        "output_norm.weight": ("model.norm.weight", "plus_one"),
        "output.weight": ("lm_head.weight", "none"),
    },
    block={
        "attn_norm.weight": ("model.layers.{}.input_layernorm.weight", "plus_one"),
        "post_attention_norm.weight": (
            "model.layers.{}.post_attention_layernorm.weight",
            "plus_one",
        ),
        "ffn_norm.weight": ("model.layers.{}.pre_feedforward_layernorm.weight", "plus_one"),
        "post_ffw_norm.weight": ("model.layers.{}.post_feedforward_layernorm.weight", "plus_one"),
        "attn_q_norm.weight": ("model.layers.{}.self_attn.q_norm.weight", "plus_one"),
        "attn_k_norm.weight": ("model.layers.{}.self_attn.k_norm.weight", "plus_one"),
        "attn_q.weight": ("model.layers.{}.self_attn.q_proj.weight", "none"),
        "attn_k.weight": ("model.layers.{}.self_attn.k_proj.weight", "none"),
        "attn_v.weight": ("model.layers.{}.self_attn.v_proj.weight", "none"),
        "attn_output.weight": ("model.layers.{}.self_attn.o_proj.weight", "none"),
        "ffn_gate.weight": ("model.layers.{}.mlp.gate_proj.weight", "none"),
        "ffn_up.weight": ("model.layers.{}.mlp.up_proj.weight", "none"),
        "ffn_down.weight": ("model.layers.{}.mlp.down_proj.weight", "none"),
    },
)

FAMILY = Family(
    name="gemma3",
    model_types=("gemma3_text",),
    architectures=("Gemma3ForCausalLM", "Gemma3TextModel"),
    prefix="model.",
    embedding="model.embed_tokens.weight",
    config=config,
    shapes=shapes,
    gguf=Gguf("gemma3", gguf_config, GGUF_NAMES),
)
