"""
Falcon: rotary positions, a plain GELU MLP beside the attention or behind it. The old decoder has
one key-value head or as many as queries and one norm a block, the new one groups, and mostly two
norms.
"""

from __future__ import annotations

from model.assemble import Parts
from model.families.pieces import (
    embedding,
    frequencies,
    layer_norm,
    linear,
    plain_mlp,
    rope_scale,
    scoring,
)
from model.transformer import Attention, Block, GroupedQKV, ParallelBlock, Transformer
from weights.checkpoint import ModelConfig


def build(config: ModelConfig, parts: Parts) -> Transformer:
    block = _parallel_block if config.block_order == "parallel" else _block
    return Transformer(
        embedding=embedding(config, parts, "transformer.word_embeddings"),
        blocks=[block(config, parts, layer) for layer in range(config.num_layers)],
        final_norm=layer_norm(config, parts, "transformer.ln_f"),
        frequencies=frequencies(config),
        rope_scale=rope_scale(config),
        kernels=parts.kernels,
    )


def _block(config: ModelConfig, parts: Parts, layer: int) -> Block:
    at = f"transformer.h.{layer}"
    return Block(
        attention_norm=layer_norm(config, parts, f"{at}.input_layernorm"),
        attention=_attention(config, parts, layer),
        mlp_norm=layer_norm(config, parts, f"{at}.post_attention_layernorm"),
        mlp=plain_mlp(config, parts, f"{at}.mlp.dense_h_to_4h", f"{at}.mlp.dense_4h_to_h"),
    )


def _parallel_block(config: ModelConfig, parts: Parts, layer: int) -> ParallelBlock:
    at = f"transformer.h.{layer}"
    has_two_norms = f"{at}.ln_mlp.weight" in parts.tensors
    norm = "ln_attn" if has_two_norms else "input_layernorm"
    return ParallelBlock(
        attention_norm=layer_norm(config, parts, f"{at}.{norm}"),
        attention=_attention(config, parts, layer),
        mlp=plain_mlp(config, parts, f"{at}.mlp.dense_h_to_4h", f"{at}.mlp.dense_4h_to_h"),
        mlp_norm=layer_norm(config, parts, f"{at}.ln_mlp") if has_two_norms else None,
    )


def _attention(config: ModelConfig, parts: Parts, layer: int) -> Attention:
    at = f"transformer.h.{layer}.self_attention"
    qkv = linear(parts, f"{at}.query_key_value")
    return Attention(
        layer=layer,
        qkv=GroupedQKV(qkv, config.num_kv_heads, config.head_dim),
        output=linear(parts, f"{at}.dense"),
        head_dim=config.head_dim,
        scoring=scoring(config, layer),
        layer_type=config.layer_types[layer],
    )
