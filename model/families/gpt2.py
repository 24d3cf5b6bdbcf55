"""
GPT (2018) and GPT-2: learned positions, one matrix for queries, keys and values, a plain GELU MLP.
GPT norms sums, GPT-2 what goes into a branch.
"""

from __future__ import annotations

from model.assemble import Parts
from model.families.pieces import embedding, layer_norm, scoring
from model.transformer import (
    Attention,
    Block,
    FusedQKV,
    PlainMLP,
    PostNormBlock,
    Transformer,
)
from weights.checkpoint import ModelConfig


def build(config: ModelConfig, parts: Parts) -> Transformer:
    return Transformer(
        embedding=embedding(config, parts, "transformer.wte"),
        blocks=[_block(config, parts, layer) for layer in range(config.num_layers)],
        final_norm=layer_norm(config, parts, "transformer.ln_f"),
        frequencies={},
        kernels=parts.kernels,
        positions=parts.vector("transformer.wpe.weight"),
    )


def build_first(config: ModelConfig, parts: Parts) -> Transformer:
    return Transformer(
        embedding=embedding(config, parts, "transformer.tokens_embed"),
        blocks=[_post_norm_block(config, parts, layer) for layer in range(config.num_layers)],
        final_norm=None,
        frequencies={},
        kernels=parts.kernels,
        positions=parts.vector("transformer.positions_embed.weight"),
    )


def _block(config: ModelConfig, parts: Parts, layer: int) -> Block:
    at = f"transformer.h.{layer}"
    return Block(
        attention_norm=layer_norm(config, parts, f"{at}.ln_1"),
        attention=_attention(config, parts, layer),
        mlp_norm=layer_norm(config, parts, f"{at}.ln_2"),
        mlp=_mlp(config, parts, at),
    )


def _post_norm_block(config: ModelConfig, parts: Parts, layer: int) -> PostNormBlock:
    at = f"transformer.h.{layer}"
    return PostNormBlock(
        attention=_attention(config, parts, layer),
        attention_norm=layer_norm(config, parts, f"{at}.ln_1"),
        mlp=_mlp(config, parts, at),
        mlp_norm=layer_norm(config, parts, f"{at}.ln_2"),
    )


def _attention(config: ModelConfig, parts: Parts, layer: int) -> Attention:
    at, width = f"transformer.h.{layer}.attn", config.hidden_size
    return Attention(
        layer=layer,
        qkv=FusedQKV(parts.conv1d(f"{at}.c_attn"), (width, width, width)),
        output=parts.conv1d(f"{at}.c_proj"),
        head_dim=config.head_dim,
        scoring=scoring(config, layer),
        layer_type=config.layer_types[layer],
    )


def _mlp(config: ModelConfig, parts: Parts, at: str) -> PlainMLP:
    return PlainMLP(
        parts.activation(config.activation),
        parts.conv1d(f"{at}.mlp.c_fc"),
        parts.conv1d(f"{at}.mlp.c_proj"),
    )
