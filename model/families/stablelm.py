"""
StableLM: norms with biases, rotary positions over a quarter of a head; in some sizes attention and
MLP side by side, and a norm for each head of queries and keys.
"""

from __future__ import annotations

import itertools

import torch

from model.assemble import Parts
from model.families.pieces import attention, decoder, gated_mlp, layer_norm
from model.norms import LayerNorm
from model.transformer import Block, ParallelBlock, Transformer
from weights.checkpoint import ModelConfig


def build(config: ModelConfig, parts: Parts) -> Transformer:
    block = _parallel_block if config.block_order == "parallel" else _block
    return decoder(config, parts, block, layer_norm(config, parts, "model.norm"))


def _block(config: ModelConfig, parts: Parts, layer: int) -> Block:
    at = f"model.layers.{layer}"
    return Block(
        attention_norm=layer_norm(config, parts, f"{at}.input_layernorm"),
        attention=attention(config, parts, layer, f"{at}.self_attn", norm=_head_norm),
        mlp_norm=layer_norm(config, parts, f"{at}.post_attention_layernorm"),
        mlp=gated_mlp(config, parts, f"{at}.mlp"),
    )


def _parallel_block(config: ModelConfig, parts: Parts, layer: int) -> ParallelBlock:
    at = f"model.layers.{layer}"
    return ParallelBlock(
        attention_norm=layer_norm(config, parts, f"{at}.input_layernorm"),
        attention=attention(config, parts, layer, f"{at}.self_attn", norm=_head_norm),
        mlp=gated_mlp(config, parts, f"{at}.mlp"),
    )


def _head_norm(config: ModelConfig, parts: Parts, name: str) -> LayerNorm:
    """A tensor a head, where Cohere has a matrix."""
    at = name.replace("_norm", "_layernorm.norms")
    each = (f"{at}.{head}.weight" for head in itertools.count())
    found = itertools.takewhile(parts.tensors.__contains__, each)
    weights = torch.stack([parts.vector(weight) for weight in found])
    return LayerNorm(weights, None, config.norm_eps, parts.kernels)
