"""
Phi-3, Phi-4-mini: Llama with one matrix for queries, keys and values and one for gate and up;
rotary positions over a part of a head, of two scales.
"""

from __future__ import annotations

from model.assemble import Parts
from model.families.pieces import embedding, frequencies, linear, rms_norm, rope_scale, scoring
from model.transformer import Attention, Block, FusedGatedMLP, FusedQKV, Transformer
from weights.checkpoint import ModelConfig


def build(config: ModelConfig, parts: Parts) -> Transformer:
    return Transformer(
        embedding=embedding(config, parts, "model.embed_tokens"),
        blocks=[_block(config, parts, layer) for layer in range(config.num_layers)],
        final_norm=rms_norm(config, parts, "model.norm"),
        frequencies=frequencies(config),
        rope_scale=rope_scale(config),
        kernels=parts.kernels,
    )


def _block(config: ModelConfig, parts: Parts, layer: int) -> Block:
    at = f"model.layers.{layer}"
    return Block(
        attention_norm=rms_norm(config, parts, f"{at}.input_layernorm"),
        attention=_attention(config, parts, layer, f"{at}.self_attn"),
        mlp_norm=rms_norm(config, parts, f"{at}.post_attention_layernorm"),
        mlp=FusedGatedMLP(
            parts.activation(config.activation),
            linear(parts, f"{at}.mlp.gate_up_proj"),
            linear(parts, f"{at}.mlp.down_proj"),
        ),
    )


def _attention(config: ModelConfig, parts: Parts, layer: int, at: str) -> Attention:
    of_q, of_kv = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    return Attention(
        layer=layer,
        qkv=FusedQKV(linear(parts, f"{at}.qkv_proj"), (of_q, of_kv, of_kv)),
        output=linear(parts, f"{at}.o_proj"),
        head_dim=config.head_dim,
        scoring=scoring(config, layer),
        layer_type=config.layer_types[layer],
    )
