"""
GPT-Neo: GPT-2 with a matrix each for queries, keys and values, scores that are not scaled, and a
window in every other layer.
"""

from __future__ import annotations

from model.assemble import Parts
from model.families.pieces import attention, decoder, layer_norm, plain_mlp
from model.transformer import Block, Transformer
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


def _block(config: ModelConfig, parts: Parts, layer: int) -> Block:
    at = f"transformer.h.{layer}"
    return Block(
        attention_norm=layer_norm(config, parts, f"{at}.ln_1"),
        attention=attention(config, parts, layer, f"{at}.attn.attention", "out_proj"),
        mlp_norm=layer_norm(config, parts, f"{at}.ln_2"),
        mlp=plain_mlp(config, parts, f"{at}.mlp.c_fc", f"{at}.mlp.c_proj"),
    )
