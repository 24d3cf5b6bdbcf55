"""
Cohere's Command R and R7B: attention and MLP side by side behind one norm without bias, heads
rotated in neighbouring pairs, scaled logits. R7B has layers that see a window and layers
without positions.
"""

from __future__ import annotations

from dataclasses import replace

from model.assemble import Parts
from model.families.pieces import (
    attention,
    embedding,
    frequencies,
    gated_mlp,
    layer_norm,
    rope_scale,
)
from model.transformer import Attention, ParallelBlock, Transformer
from weights.checkpoint import ModelConfig


def build(config: ModelConfig, parts: Parts) -> Transformer:
    return Transformer(
        embedding=embedding(config, parts, "model.embed_tokens"),
        blocks=[_block(config, parts, layer) for layer in range(config.num_layers)],
        final_norm=layer_norm(config, parts, "model.norm"),
        frequencies=frequencies(config),
        rope_scale=rope_scale(config),
        kernels=parts.kernels,
    )


def _block(config: ModelConfig, parts: Parts, layer: int) -> ParallelBlock:
    at = f"model.layers.{layer}"
    return ParallelBlock(
        attention_norm=layer_norm(config, parts, f"{at}.input_layernorm"),
        attention=_attention(config, parts, layer),
        mlp=gated_mlp(config, parts, f"{at}.mlp"),
    )


def _attention(config: ModelConfig, parts: Parts, layer: int) -> Attention:
    at = f"model.layers.{layer}.self_attn"
    plain = replace(attention(config, parts, layer, at, "o_proj"), pairs="neighbours")
    if not config.has_qk_norm:
        return plain
    q, k = (layer_norm(config, parts, f"{at}.{x}_norm") for x in "qk")
    return replace(plain, q_norm=q, k_norm=k)
