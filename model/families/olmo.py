"""
OLMo: norms without weights, queries, keys and values cut to a limit. OLMo 2: RMS norms behind each
branch and none before it, queries and keys normed over all heads at once.
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
    rms_norm,
    rope_scale,
)
from model.transformer import (
    AllHeadsNorm,
    Attention,
    Block,
    ClippedQKV,
    LayerNorm,
    Transformer,
)
from weights.checkpoint import ModelConfig


def build(config: ModelConfig, parts: Parts) -> Transformer:
    norm = LayerNorm(torch.ones(config.hidden_size), None, config.norm_eps, parts.kernels)
    return Transformer(
        embedding=embedding(config, parts, "model.embed_tokens"),
        blocks=[_block(config, parts, layer, norm) for layer in range(config.num_layers)],
        final_norm=norm,
        frequencies=frequencies(config),
        rope_scale=rope_scale(config),
        kernels=parts.kernels,
    )


def build_second(config: ModelConfig, parts: Parts) -> Transformer:
    return Transformer(
        embedding=embedding(config, parts, "model.embed_tokens"),
        blocks=[_second_block(config, parts, layer) for layer in range(config.num_layers)],
        final_norm=rms_norm(config, parts, "model.norm"),
        frequencies=frequencies(config),
        rope_scale=rope_scale(config),
        kernels=parts.kernels,
    )


def _block(config: ModelConfig, parts: Parts, layer: int, norm: LayerNorm) -> Block:
    at = f"model.layers.{layer}"
    return Block(
        attention_norm=norm,
        attention=_clipped(
            config, parts, attention(config, parts, layer, f"{at}.self_attn", "o_proj")
        ),
        mlp_norm=norm,
        mlp=gated_mlp(config, parts, f"{at}.mlp"),
    )


def _clipped(config: ModelConfig, parts: Parts, plain: Attention) -> Attention:
    if config.qkv_limit is None:
        return plain
    return replace(plain, qkv=ClippedQKV(plain.qkv, config.qkv_limit, parts.kernels))


def _second_block(config: ModelConfig, parts: Parts, layer: int) -> Block:
    at = f"model.layers.{layer}"
    q, k = (AllHeadsNorm(rms_norm(config, parts, f"{at}.self_attn.{x}_norm")) for x in "qk")
    plain = attention(config, parts, layer, f"{at}.self_attn", "o_proj")
    return Block(
        attention_norm=None,
        attention=replace(plain, q_norm=q, k_norm=k),
        attention_post_norm=rms_norm(config, parts, f"{at}.post_attention_layernorm"),
        mlp_norm=None,
        mlp=gated_mlp(config, parts, f"{at}.mlp"),
        mlp_post_norm=rms_norm(config, parts, f"{at}.post_feedforward_layernorm"),
    )
