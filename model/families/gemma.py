"""
Gemma 1, 2 and 3 (text). All scale what they look up by the root of the width, and store norms as
the distance from one. 2 and 3 norm a branch before and after; 2 caps scores and logits; 3 norms
queries and keys and has a rotary base for each kind of layer.
"""

from __future__ import annotations

from dataclasses import replace

from model.assemble import Parts
from model.families.pieces import attention, embedding, frequencies, gated_mlp
from model.transformer import Attention, Block, RMSNorm, Transformer
from weights.checkpoint import ModelConfig


def build(config: ModelConfig, parts: Parts) -> Transformer:
    block = _block if config.family == "gemma" else _four_norm_block
    return Transformer(
        embedding=embedding(config, parts, "model.embed_tokens"),
        blocks=[block(config, parts, layer) for layer in range(config.num_layers)],
        final_norm=_norm(config, parts, "model.norm"),
        frequencies=frequencies(config),
        kernels=parts.kernels,
    )


def _norm(config: ModelConfig, parts: Parts, name: str) -> RMSNorm:
    return RMSNorm(1.0 + parts.vector(f"{name}.weight"), config.norm_eps, parts.kernels)


def _block(config: ModelConfig, parts: Parts, layer: int) -> Block:
    at = f"model.layers.{layer}"
    return Block(
        attention_norm=_norm(config, parts, f"{at}.input_layernorm"),
        attention=_attention(config, parts, layer),
        mlp_norm=_norm(config, parts, f"{at}.post_attention_layernorm"),
        mlp=gated_mlp(config, parts, f"{at}.mlp"),
    )


def _four_norm_block(config: ModelConfig, parts: Parts, layer: int) -> Block:
    at = f"model.layers.{layer}"
    return Block(
        attention_norm=_norm(config, parts, f"{at}.input_layernorm"),
        attention=_attention(config, parts, layer),
        attention_post_norm=_norm(config, parts, f"{at}.post_attention_layernorm"),
        mlp_norm=_norm(config, parts, f"{at}.pre_feedforward_layernorm"),
        mlp=gated_mlp(config, parts, f"{at}.mlp"),
        mlp_post_norm=_norm(config, parts, f"{at}.post_feedforward_layernorm"),
    )


def _attention(config: ModelConfig, parts: Parts, layer: int) -> Attention:
    at = f"model.layers.{layer}.self_attn"
    plain = attention(config, parts, layer, at, "o_proj")
    if not config.has_qk_norm:
        return plain
    q, k = (_norm(config, parts, f"{at}.{x}_norm") for x in "qk")
    return replace(plain, q_norm=q, k_norm=k)
