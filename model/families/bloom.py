"""BLOOM: ALiBi instead of positions, and a norm on what was looked up."""

from __future__ import annotations

from model.assemble import Parts
from model.families.pieces import decoder, grouped_attention, layer_norm, plain_mlp
from model.transformer import Block, Transformer
from weights.checkpoint import ModelConfig


def build(config: ModelConfig, parts: Parts) -> Transformer:
    return decoder(
        config,
        parts,
        block,
        layer_norm(config, parts, "transformer.ln_f"),
        table="transformer.word_embeddings",
        entry=layer_norm(config, parts, "transformer.word_embeddings_layernorm"),
    )


def block(config: ModelConfig, parts: Parts, layer: int) -> Block:
    at = f"transformer.h.{layer}"
    return Block(
        attention_norm=layer_norm(config, parts, f"{at}.input_layernorm"),
        attention=grouped_attention(config, parts, layer, f"{at}.self_attention"),
        mlp_norm=layer_norm(config, parts, f"{at}.post_attention_layernorm"),
        mlp=plain_mlp(config, parts, f"{at}.mlp.dense_h_to_4h", f"{at}.mlp.dense_4h_to_h"),
    )
