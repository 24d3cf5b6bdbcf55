"""MPT: ALiBi instead of positions, no bias anywhere, queries, keys and values cut to a limit."""

from __future__ import annotations

from model.assemble import Parts
from model.families.pieces import (
    attention_over,
    clipped,
    decoder,
    fused_qkv,
    layer_norm,
    linear,
    plain_mlp,
)
from model.transformer import Block, Transformer
from weights.checkpoint import ModelConfig


def build(config: ModelConfig, parts: Parts) -> Transformer:
    norm = layer_norm(config, parts, "transformer.norm_f")
    return decoder(config, parts, _block, norm, table="transformer.wte")


def _block(config: ModelConfig, parts: Parts, layer: int) -> Block:
    at = f"transformer.blocks.{layer}"
    qkv = fused_qkv(config, linear(parts, f"{at}.attn.Wqkv"))
    output = linear(parts, f"{at}.attn.out_proj")
    return Block(
        attention_norm=layer_norm(config, parts, f"{at}.norm_1"),
        attention=attention_over(config, layer, clipped(config, parts, qkv), output),
        mlp_norm=layer_norm(config, parts, f"{at}.norm_2"),
        mlp=plain_mlp(config, parts, f"{at}.ffn.up_proj", f"{at}.ffn.down_proj"),
    )
