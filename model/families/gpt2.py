"""
GPT-2: LayerNorm, learned positions, one matrix for queries, keys and values, a plain GELU MLP.
"""

from __future__ import annotations

from model.assemble import Parts
from model.transformer import Attention, Block, FusedQKV, LayerNorm, PlainMLP, Transformer
from weights.checkpoint import ModelConfig


def build(config: ModelConfig, parts: Parts) -> Transformer:
    return Transformer(
        embedding=parts.embedding("transformer.wte"),
        blocks=[_block(config, parts, layer) for layer in range(config.num_layers)],
        final_norm=_norm(config, parts, "transformer.ln_f"),
        frequencies={},
        kernels=parts.kernels,
        positions=parts.vector("transformer.wpe.weight"),
    )


def _norm(config: ModelConfig, parts: Parts, name: str) -> LayerNorm:
    return LayerNorm(parts.vector(f"{name}.weight"), parts.vector(f"{name}.bias"), config.norm_eps)


def _block(config: ModelConfig, parts: Parts, layer: int) -> Block:
    at, width = f"transformer.h.{layer}", config.hidden_size
    return Block(
        attention_norm=_norm(config, parts, f"{at}.ln_1"),
        attention=Attention(
            layer=layer,
            qkv=FusedQKV(parts.conv1d(f"{at}.attn.c_attn"), (width, width, width)),
            output=parts.conv1d(f"{at}.attn.c_proj"),
            head_dim=config.head_dim,
            scale=config.attention_scale,
            layer_type=config.layer_types[layer],
        ),
        mlp_norm=_norm(config, parts, f"{at}.ln_2"),
        mlp=PlainMLP(
            parts.activation(config.activation),
            parts.conv1d(f"{at}.mlp.c_fc"),
            parts.conv1d(f"{at}.mlp.c_proj"),
        ),
    )
