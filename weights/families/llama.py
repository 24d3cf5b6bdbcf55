"""Llama: rotary positions, RMS norms, a gated MLP, grouped key-value heads."""

from __future__ import annotations

from typing import Any

from weights.checkpoint import ModelConfig
from weights.families.family import (
    ACTIVATIONS,
    Family,
    Gguf,
    GgufNames,
    Shapes,
    check_groups,
    full_layers,
    head_dim,
)
from weights.fields import MAX_COUNT, Fields
from weights.rope import read_rope


def config(fields: Fields) -> ModelConfig:
    hidden_size, num_heads = fields.count("hidden_size"), fields.count("num_attention_heads")
    num_kv_heads = fields.count("num_key_value_heads", num_heads)
    num_layers = fields.count("num_hidden_layers", maximum=4096)
    check_groups(fields, num_heads, num_kv_heads)
    width = head_dim(fields, hidden_size, num_heads)
    fields.must_be("partial_rotary_factor", 1.0)
    return ModelConfig(
        family="llama",
        vocab_size=fields.count("vocab_size"),
        hidden_size=hidden_size,
        intermediate_size=fields.count("intermediate_size"),
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=width,
        max_position_embeddings=fields.count("max_position_embeddings", 2048),
        norm_eps=fields.positive("rms_norm_eps", 1e-6),
        activation=fields.choice("hidden_act", ACTIVATIONS, "silu"),
        attention_scale=width**-0.5,
        layer_types=full_layers(num_layers),
        ropes={"full": read_rope(fields, width)},
        attention_bias=fields.flag("attention_bias", False),
        mlp_bias=fields.flag("mlp_bias", False),
    )


def shapes(config: ModelConfig) -> Shapes:
    C, F = config.hidden_size, config.intermediate_size
    Q, KV = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    matrices = {"q_proj": (Q, C), "k_proj": (KV, C), "v_proj": (KV, C), "o_proj": (C, Q)}
    gates = {"gate_proj": (F, C), "up_proj": (F, C), "down_proj": (C, F)}
    named: Shapes = {"model.embed_tokens.weight": (config.vocab_size, C), "model.norm.weight": (C,)}
    for layer in (f"model.layers.{i}" for i in range(config.num_layers)):
        named[f"{layer}.input_layernorm.weight"] = (C,)
        named[f"{layer}.post_attention_layernorm.weight"] = (C,)
        named |= _linears(f"{layer}.self_attn", matrices, config.attention_bias)
        named |= _linears(f"{layer}.mlp", gates, config.mlp_bias)
    return named


def _linears(where: str, matrices: dict[str, tuple[int, int]], has_bias: bool) -> Shapes:
    named: Shapes = {f"{where}.{name}.weight": shape for name, shape in matrices.items()}
    if has_bias:
        named |= {f"{where}.{name}.bias": shape[:1] for name, shape in matrices.items()}
    return named


def gguf_config(metadata: Fields, facts: Fields) -> dict[str, Any]:
    metadata.must_be("expert_count", 0)
    num_heads = metadata.count("attention.head_count")
    whole = max(1, metadata.count("embedding_length") // num_heads)
    width = metadata.count("attention.key_length", metadata.count("rope.dimension_count", whole))
    metadata.must_be("rope.dimension_count", width)
    metadata.must_be("attention.value_length", width)
    return {
        "model_type": "llama",
        "vocab_size": facts.raw["vocab_size"],
        "hidden_size": metadata.count("embedding_length"),
        "intermediate_size": metadata.count("feed_forward_length"),
        "num_hidden_layers": metadata.count("block_count"),
        "num_attention_heads": num_heads,
        "num_key_value_heads": metadata.count("attention.head_count_kv", num_heads),
        "head_dim": width,
        "max_position_embeddings": metadata.count("context_length", MAX_COUNT),
        "rms_norm_eps": metadata.positive("attention.layer_norm_rms_epsilon"),
        "rope_theta": metadata.positive("rope.freq_base", 10_000.0),
        "rope_scaling": facts.raw.get("rope_scaling"),
        "attention_bias": "blk.0.attn_q.bias" in facts.raw["tensors"],
        "mlp_bias": "blk.0.ffn_up.bias" in facts.raw["tensors"],
    }


GGUF_NAMES = GgufNames(
    whole={
        "token_embd.weight": ("model.embed_tokens.weight", "none"),
        "output_norm.weight": ("model.norm.weight", "none"),
        "output.weight": ("lm_head.weight", "none"),
    },
    block={
        "attn_norm.weight": ("model.layers.{}.input_layernorm.weight", "none"),
        "ffn_norm.weight": ("model.layers.{}.post_attention_layernorm.weight", "none"),
        "attn_q.weight": ("model.layers.{}.self_attn.q_proj.weight", "rotary_q"),
        "attn_k.weight": ("model.layers.{}.self_attn.k_proj.weight", "rotary_k"),
        "attn_v.weight": ("model.layers.{}.self_attn.v_proj.weight", "none"),
        "attn_output.weight": ("model.layers.{}.self_attn.o_proj.weight", "none"),
        "attn_q.bias": ("model.layers.{}.self_attn.q_proj.bias", "rotary_q"),
        "attn_k.bias": ("model.layers.{}.self_attn.k_proj.bias", "rotary_k"),
        "attn_v.bias": ("model.layers.{}.self_attn.v_proj.bias", "none"),
        "attn_output.bias": ("model.layers.{}.self_attn.o_proj.bias", "none"),
        "ffn_gate.weight": ("model.layers.{}.mlp.gate_proj.weight", "none"),
        "ffn_up.weight": ("model.layers.{}.mlp.up_proj.weight", "none"),
        "ffn_down.weight": ("model.layers.{}.mlp.down_proj.weight", "none"),
        "ffn_gate.bias": ("model.layers.{}.mlp.gate_proj.bias", "none"),
        "ffn_up.bias": ("model.layers.{}.mlp.up_proj.bias", "none"),
        "ffn_down.bias": ("model.layers.{}.mlp.down_proj.bias", "none"),
    },
)

FAMILY = Family(
    name="llama",
    model_types=("llama",),
    architectures=("LlamaForCausalLM", "LlamaModel"),
    prefix="model.",
    embedding="model.embed_tokens.weight",
    config=config,
    shapes=shapes,
    gguf=Gguf("llama", gguf_config, GGUF_NAMES),
    ignored=(".rotary_emb.inv_freq",),
)
