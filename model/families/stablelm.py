"""
StableLM: norms with biases, rotary positions over a quarter of a head; in some sizes attention and
MLP side by side, and a norm for each head of queries and keys.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from model.assemble import Parts
from model.families.pieces import (
    attention,
    embedding,
    frequencies,
    gated_mlp,
    layer_norm,
    rope_scale,
)
from model.transformer import Attention, Block, LayerNorm, ParallelBlock, Transformer
from weights.checkpoint import ModelConfig


def build(config: ModelConfig, parts: Parts) -> Transformer:
    block = _parallel_block if config.block_order == "parallel" else _block
    return Transformer(
        embedding=embedding(config, parts, "model.embed_tokens"),
        blocks=[block(config, parts, layer) for layer in range(config.num_layers)],
        final_norm=layer_norm(config, parts, "model.norm"),
        frequencies=frequencies(config),
        rope_scale=rope_scale(config),
        kernels=parts.kernels,
    )


def _block(config: ModelConfig, parts: Parts, layer: int) -> Block:
    at = f"model.layers.{layer}"
    return Block(
        attention_norm=layer_norm(config, parts, f"{at}.input_layernorm"),
        attention=_attention(config, parts, layer),
        mlp_norm=layer_norm(config, parts, f"{at}.post_attention_layernorm"),
        mlp=gated_mlp(config, parts, f"{at}.mlp"),
    )


def _parallel_block(config: ModelConfig, parts: Parts, layer: int) -> ParallelBlock:
    at = f"model.layers.{layer}"
    return ParallelBlock(
        attention_norm=layer_norm(config, parts, f"{at}.input_layernorm"),
        attention=_attention(config, parts, layer),
        mlp=gated_mlp(config, parts, f"{at}.mlp"),
    )


def _attention(config: ModelConfig, parts: Parts, layer: int) -> Attention:
    at = f"model.layers.{layer}.self_attn"
    plain = attention(config, parts, layer, at, "o_proj")
    if not config.has_qk_norm:
        return plain
    q = _head_norm(config, parts, f"{at}.q_layernorm", config.num_heads)
    k = _head_norm(config, parts, f"{at}.k_layernorm", config.num_kv_heads)
    return replace(plain, q_norm=q, k_norm=k)


def _head_norm(config: ModelConfig, parts: Parts, name: str, num_heads: int) -> LayerNorm:
    weights = [parts.vector(f"{name}.norms.{head}.weight") for head in range(num_heads)]
    return LayerNorm(torch.stack(weights), None, config.norm_eps, parts.kernels)
