"""
GPT (2018) and GPT-2: learned positions, one matrix for queries, keys and values, a plain GELU MLP.
GPT norms sums, GPT-2 what goes into a branch.
"""

from __future__ import annotations

from model.assemble import Parts
from model.families.pieces import attention_over, decoder, fused_qkv, layer_norm
from model.transformer import Attention, Block, PlainMLP, PostNormBlock, Transformer
from weights.checkpoint import ModelConfig


def build(config: ModelConfig, parts: Parts) -> Transformer:
    return decoder(
        config,
        parts,
        _block,
        layer_norm(config, parts, "transformer.ln_f"),
        table="transformer.wte",
        positions=parts.vector("transformer.wpe.weight"),
    )


def build_first(config: ModelConfig, parts: Parts) -> Transformer:
    return decoder(
        config,
        parts,
        _post_norm_block,
        None,
        table="transformer.tokens_embed",
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
    at = f"transformer.h.{layer}.attn"
    qkv = fused_qkv(config, parts.conv1d(f"{at}.c_attn"))
    return attention_over(config, layer, qkv, parts.conv1d(f"{at}.c_proj"))


def _mlp(config: ModelConfig, parts: Parts, at: str) -> PlainMLP:
    return PlainMLP(
        parts.activation(config.activation),
        parts.conv1d(f"{at}.mlp.c_fc", "mlp"),
        parts.conv1d(f"{at}.mlp.c_proj", "mlp"),
    )
