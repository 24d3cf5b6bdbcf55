"""
Gemma 1, 2 and 3 (text). All scale what they look up by the root of the width, and store norms as
the distance from one. 2 and 3 norm a branch before and after; 2 caps scores and logits; 3 norms
queries and keys and has a rotary base for each kind of layer.
"""

from __future__ import annotations

from model.assemble import Parts
from model.families.pieces import attention, decoder, gated_mlp
from model.norms import RMSNorm
from model.transformer import Block, Transformer
from weights.checkpoint import ModelConfig


def build(config: ModelConfig, parts: Parts) -> Transformer:
    block = _block if config.family == "gemma" else _four_norm_block
    return decoder(config, parts, block, _norm(config, parts, "model.norm"))


def _norm(config: ModelConfig, parts: Parts, name: str) -> RMSNorm:
    return RMSNorm(1.0 + parts.vector(f"{name}.weight"), config.norm_eps, parts.kernels)


def _block(config: ModelConfig, parts: Parts, layer: int) -> Block:
    at = f"model.layers.{layer}"
    return Block(
        attention_norm=_norm(config, parts, f"{at}.input_layernorm"),
        attention=attention(config, parts, layer, f"{at}.self_attn"),
        mlp_norm=_norm(config, parts, f"{at}.post_attention_layernorm"),
        mlp=gated_mlp(config, parts, f"{at}.mlp"),
    )


def _four_norm_block(config: ModelConfig, parts: Parts, layer: int) -> Block:
    at = f"model.layers.{layer}"
    return Block(
        attention_norm=_norm(config, parts, f"{at}.input_layernorm"),
        attention=attention(config, parts, layer, f"{at}.self_attn", norm=_norm),
        attention_post_norm=_norm(config, parts, f"{at}.post_attention_layernorm"),
        mlp_norm=_norm(config, parts, f"{at}.pre_feedforward_layernorm"),
        mlp=gated_mlp(config, parts, f"{at}.mlp"),
        mlp_post_norm=_norm(config, parts, f"{at}.post_feedforward_layernorm"),
    )
