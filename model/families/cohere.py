"""
Cohere's Command R and R7B: attention and MLP side by side behind one norm without bias, heads
rotated in neighbouring pairs, scaled logits. R7B has layers that see a window and layers
without positions.
"""

from __future__ import annotations

from dataclasses import replace

from model.assemble import Parts
from model.families.pieces import attention, decoder, gated_mlp, layer_norm
from model.transformer import ParallelBlock, Transformer
from weights.checkpoint import ModelConfig


def build(config: ModelConfig, parts: Parts) -> Transformer:
    return decoder(config, parts, _block, layer_norm(config, parts, "model.norm"))


def _block(config: ModelConfig, parts: Parts, layer: int) -> ParallelBlock:
    at = f"model.layers.{layer}"
    plain = attention(config, parts, layer, f"{at}.self_attn", norm=layer_norm)
    return ParallelBlock(
        attention_norm=layer_norm(config, parts, f"{at}.input_layernorm"),
        attention=replace(plain, pairs="neighbours"),
        mlp=gated_mlp(config, parts, f"{at}.mlp"),
    )
