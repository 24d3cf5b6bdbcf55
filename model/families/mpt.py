"""MPT: ALiBi instead of positions, no bias anywhere, queries, keys and values cut to a limit."""

from __future__ import annotations

from model.assemble import Parts
from model.families.pieces import embedding, layer_norm, linear, plain_mlp, scoring
from model.transformer import Attention, Block, ClippedQKV, FusedQKV, Transformer
from weights.checkpoint import ModelConfig


def build(config: ModelConfig, parts: Parts) -> Transformer:
    return Transformer(
        embedding=embedding(config, parts, "transformer.wte"),
        blocks=[_block(config, parts, layer) for layer in range(config.num_layers)],
        final_norm=layer_norm(config, parts, "transformer.norm_f"),
        frequencies={},
        kernels=parts.kernels,
    )


def _block(config: ModelConfig, parts: Parts, layer: int) -> Block:
    at = f"transformer.blocks.{layer}"
    return Block(
        attention_norm=layer_norm(config, parts, f"{at}.norm_1"),
        attention=_attention(config, parts, layer, f"{at}.attn"),
        mlp_norm=layer_norm(config, parts, f"{at}.norm_2"),
        mlp=plain_mlp(config, parts, f"{at}.ffn.up_proj", f"{at}.ffn.down_proj"),
    )


def _attention(config: ModelConfig, parts: Parts, layer: int, at: str) -> Attention:
    width = config.hidden_size
    fused = FusedQKV(linear(parts, f"{at}.Wqkv"), (width, width, width))
    return Attention(
        layer=layer,
        qkv=fused
        if config.qkv_limit is None
        else ClippedQKV(fused, config.qkv_limit, parts.kernels),
        output=linear(parts, f"{at}.out_proj"),
        head_dim=config.head_dim,
        scoring=scoring(config, layer),
        layer_type=config.layer_types[layer],
    )
