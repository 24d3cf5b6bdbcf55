"""
What several families put together alike. A bias is there where the checkpoint has one: its family's
shapes said which it must have.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from model.alibi import slopes
from model.assemble import Parts
from model.attention import Scoring
from model.embedding import TiedEmbedding
from model.linear import Linear
from model.rope import inverse_frequencies
from model.transformer import (
    Attention,
    GatedMLP,
    LayerNorm,
    PlainMLP,
    RMSNorm,
    Scaled,
    SeparateQKV,
)
from weights.checkpoint import LayerType, ModelConfig


def embedding(config: ModelConfig, parts: Parts, name: str) -> TiedEmbedding:
    return replace(
        parts.embedding(name, config.embedding_scale),
        logit_scale=config.logit_scale,
        logit_cap=config.logit_cap,
    )


def linear(parts: Parts, name: str) -> Linear:
    return parts.linear(name, f"{name}.bias" in parts.tensors)


def branch_end(config: ModelConfig, layer: Linear) -> Linear | Scaled:
    return layer if config.residual_scale == 1.0 else Scaled(layer, config.residual_scale)


def layer_norm(config: ModelConfig, parts: Parts, name: str) -> LayerNorm:
    bias = parts.vector(f"{name}.bias") if f"{name}.bias" in parts.tensors else None
    return LayerNorm(parts.vector(f"{name}.weight"), bias, config.norm_eps, parts.kernels)


def rms_norm(config: ModelConfig, parts: Parts, name: str) -> RMSNorm:
    return RMSNorm(parts.vector(f"{name}.weight"), config.norm_eps, parts.kernels)


def frequencies(config: ModelConfig) -> dict[LayerType, torch.Tensor]:
    return {kind: inverse_frequencies(rope) for kind, rope in config.ropes.items()}


def rope_scale(config: ModelConfig) -> float:
    """Of cosines and sines: every kind of layer has the same."""
    return next((rope.scale for rope in config.ropes.values()), 1.0)


def scoring(config: ModelConfig, layer: int) -> Scoring:
    bias = config.alibi_max_bias
    return Scoring(
        config.attention_scale,
        config.sliding_window if config.layer_types[layer] == "sliding" else None,
        config.attention_cap,
        None if bias is None else slopes(config.num_heads, bias),
    )


def attention(config: ModelConfig, parts: Parts, layer: int, at: str, output: str) -> Attention:
    """Queries, keys and values by a matrix each: {at}.q_proj and so on."""
    return Attention(
        layer=layer,
        qkv=SeparateQKV(*(linear(parts, f"{at}.{x}_proj") for x in "qkv")),
        output=branch_end(config, linear(parts, f"{at}.{output}")),
        head_dim=config.head_dim,
        scoring=scoring(config, layer),
        layer_type=config.layer_types[layer],
    )


def gated_mlp(config: ModelConfig, parts: Parts, at: str) -> GatedMLP:
    return GatedMLP(
        parts.activation(config.activation),
        linear(parts, f"{at}.gate_proj"),
        linear(parts, f"{at}.up_proj"),
        branch_end(config, linear(parts, f"{at}.down_proj")),
    )


def plain_mlp(config: ModelConfig, parts: Parts, up: str, down: str) -> PlainMLP:
    return PlainMLP(parts.activation(config.activation), linear(parts, up), linear(parts, down))
