"""
OLMo: norms without weights, queries, keys and values cut to a limit. OLMo 2: RMS norms behind each
branch and none before it, queries and keys normed over all heads at once.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from model.assemble import Parts
from model.families.pieces import attention, clipped, decoder, gated_mlp, rms_norm
from model.norms import AllHeadsNorm, LayerNorm
from model.transformer import Block, Transformer
from weights.checkpoint import ModelConfig


def build(config: ModelConfig, parts: Parts) -> Transformer:
    norm = LayerNorm(torch.ones(config.hidden_size), None, config.norm_eps, parts.kernels)

    def block(config: ModelConfig, parts: Parts, layer: int) -> Block:
        at = f"model.layers.{layer}"
        plain = attention(config, parts, layer, f"{at}.self_attn")
        return Block(
            attention_norm=norm,
            attention=replace(plain, qkv=clipped(config, parts, plain.qkv)),
            mlp_norm=norm,
            mlp=gated_mlp(config, parts, f"{at}.mlp"),
        )

    return decoder(config, parts, block, norm)


def build_second(config: ModelConfig, parts: Parts) -> Transformer:
    return decoder(config, parts, _second_block, rms_norm(config, parts, "model.norm"))


def _second_block(config: ModelConfig, parts: Parts, layer: int) -> Block:
    at = f"model.layers.{layer}"
    return Block(
        attention_norm=None,
        attention=attention(config, parts, layer, f"{at}.self_attn", norm=_all_heads_norm),
        attention_post_norm=rms_norm(config, parts, f"{at}.post_attention_layernorm"),
        mlp_norm=None,
        mlp=gated_mlp(config, parts, f"{at}.mlp"),
        mlp_post_norm=rms_norm(config, parts, f"{at}.post_feedforward_layernorm"),
    )


def _all_heads_norm(config: ModelConfig, parts: Parts, name: str) -> AllHeadsNorm:
    return AllHeadsNorm(rms_norm(config, parts, name))
