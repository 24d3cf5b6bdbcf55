"""
What several families put together alike. A bias is there where the checkpoint has one: its family's
shapes said which it must have.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from model.alibi import slopes
from model.assemble import Parts
from model.attention import Scoring
from model.embedding import TiedEmbedding
from model.linear import Linear
from model.norms import AllHeadsNorm, LayerNorm, Norm, RMSNorm
from model.precision import Role
from model.rope import inverse_frequencies
from model.transformer import (
    QKV,
    Attention,
    Block,
    ClippedQKV,
    FusedQKV,
    GatedMLP,
    GroupedQKV,
    ParallelBlock,
    PlainMLP,
    PostNormBlock,
    Scaled,
    SeparateQKV,
    Transformer,
)
from weights.checkpoint import LayerType, ModelConfig

Layer = Block | ParallelBlock | PostNormBlock
HeadsNorm = Norm | AllHeadsNorm


def decoder(
    config: ModelConfig,
    parts: Parts,
    block: Callable[[ModelConfig, Parts, int], Layer],
    final_norm: Norm | None,
    *,
    table: str = "model.embed_tokens",
    positions: Tensor | None = None,
    entry: Norm | Linear | None = None,
    final: Linear | None = None,
) -> Transformer:
    """
    A whole model of one kind of block. `table`: the tied matrix; `final`: Transformer.exit; the
    rest is Transformer's.
    """
    return Transformer(
        embedding=embedding(config, parts, table),
        blocks=[block(config, parts, layer) for layer in range(config.num_layers)],
        final_norm=final_norm,
        frequencies=frequencies(config),
        rope_scale=rope_scale(config),
        kernels=parts.kernels,
        positions=positions,
        entry=entry,
        exit=final,
    )


def embedding(config: ModelConfig, parts: Parts, name: str) -> TiedEmbedding:
    return replace(
        parts.embedding(name, config.embedding_scale),
        logit_scale=config.logit_scale,
        logit_cap=config.logit_cap,
    )


def linear(parts: Parts, name: str, role: Role = "linear") -> Linear:
    return parts.linear(name, f"{name}.bias" in parts.tensors, role)


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
        config.is_alibi_coarse,
    )


def attention(
    config: ModelConfig,
    parts: Parts,
    layer: int,
    at: str,
    output: str = "o_proj",
    norm: Callable[[ModelConfig, Parts, str], HeadsNorm] = rms_norm,
) -> Attention:
    """
    Queries, keys and values by a matrix each: {at}.q_proj and so on. `norm`: of queries and keys,
    {at}.q_norm and k_norm, where the config has them.
    """
    qkv = SeparateQKV(*(linear(parts, f"{at}.{x}_proj") for x in "qkv"))
    plain = attention_over(config, layer, qkv, branch_end(config, linear(parts, f"{at}.{output}")))
    if not config.has_qk_norm:
        return plain
    q, k = (norm(config, parts, f"{at}.{x}_norm") for x in "qk")
    return replace(plain, q_norm=q, k_norm=k)


def attention_over(
    config: ModelConfig,
    layer: int,
    qkv: QKV,
    output: Linear | Scaled,
) -> Attention:
    return Attention(
        layer=layer,
        qkv=qkv,
        output=output,
        head_dim=config.head_dim,
        scoring=scoring(config, layer),
        layer_type=config.layer_types[layer],
    )


def grouped_attention(config: ModelConfig, parts: Parts, layer: int, at: str) -> Attention:
    """One matrix, each key-value head's keys and values behind its own queries."""
    qkv = linear(parts, f"{at}.query_key_value")
    grouped = GroupedQKV(qkv, config.num_kv_heads, config.head_dim)
    return attention_over(config, layer, grouped, linear(parts, f"{at}.dense"))


def fused_qkv(config: ModelConfig, qkv: Linear) -> FusedQKV:
    """One matrix: all queries, then all keys, then all values."""
    of_q, of_kv = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    return FusedQKV(qkv, (of_q, of_kv, of_kv))


def clipped(config: ModelConfig, parts: Parts, qkv: QKV) -> QKV:
    limit = config.qkv_limit
    return qkv if limit is None else ClippedQKV(qkv, limit, parts.kernels)


def gated_mlp(config: ModelConfig, parts: Parts, at: str) -> GatedMLP:
    return GatedMLP(
        parts.activation(config.activation),
        linear(parts, f"{at}.gate_proj", "mlp"),
        linear(parts, f"{at}.up_proj", "mlp"),
        branch_end(config, linear(parts, f"{at}.down_proj", "mlp")),
    )


def plain_mlp(config: ModelConfig, parts: Parts, up: str, down: str) -> PlainMLP:
    ends = (linear(parts, name, "mlp") for name in (up, down))
    return PlainMLP(parts.activation(config.activation), *ends)
