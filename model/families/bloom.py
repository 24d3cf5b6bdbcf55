"""BLOOM: ALiBi instead of positions, and a norm on what was looked up."""

from __future__ import annotations

from model.assemble import Parts
from model.families.pieces import embedding, layer_norm, linear, plain_mlp, scoring
from model.transformer import Attention, Block, GroupedQKV, Transformer
from weights.checkpoint import ModelConfig


def build(config: ModelConfig, parts: Parts) -> Transformer:
    return Transformer(
        embedding=embedding(config, parts, "transformer.word_embeddings"),
        blocks=[_block(config, parts, layer) for layer in range(config.num_layers)],
        final_norm=layer_norm(config, parts, "transformer.ln_f"),
        frequencies={},
        kernels=parts.kernels,
        entry=layer_norm(config, parts, "transformer.word_embeddings_layernorm"),
    )


def _block(config: ModelConfig, parts: Parts, layer: int) -> Block:
    at = f"transformer.h.{layer}"
    qkv = linear(parts, f"{at}.self_attention.query_key_value")
    return Block(
        attention_norm=layer_norm(config, parts, f"{at}.input_layernorm"),
        attention=Attention(
            layer=layer,
            qkv=GroupedQKV(qkv, config.num_kv_heads, config.head_dim),
            output=linear(parts, f"{at}.self_attention.dense"),
            head_dim=config.head_dim,
            scoring=scoring(config, layer),
            layer_type=config.layer_types[layer],
        ),
        mlp_norm=layer_norm(config, parts, f"{at}.post_attention_layernorm"),
        mlp=plain_mlp(config, parts, f"{at}.mlp.dense_h_to_4h", f"{at}.mlp.dense_4h_to_h"),
    )
