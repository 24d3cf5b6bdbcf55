"""StarCoder 2: norms and matrices with biases, a plain GELU MLP, a window in every layer."""

from __future__ import annotations

from model.assemble import Parts
from model.families.pieces import (
    attention,
    embedding,
    frequencies,
    layer_norm,
    plain_mlp,
    rope_scale,
)
from model.transformer import Block, Transformer
from weights.checkpoint import ModelConfig


def build(config: ModelConfig, parts: Parts) -> Transformer:
    return Transformer(
        embedding=embedding(config, parts, "model.embed_tokens"),
        blocks=[_block(config, parts, layer) for layer in range(config.num_layers)],
        final_norm=layer_norm(config, parts, "model.norm"),
        frequencies=frequencies(config),
        rope_scale=rope_scale(config),
        kernels=parts.kernels,
    )


def _block(config: ModelConfig, parts: Parts, layer: int) -> Block:
    at = f"model.layers.{layer}"
    return Block(
        attention_norm=layer_norm(config, parts, f"{at}.input_layernorm"),
        attention=attention(config, parts, layer, f"{at}.self_attn", "o_proj"),
        mlp_norm=layer_norm(config, parts, f"{at}.post_attention_layernorm"),
        mlp=plain_mlp(config, parts, f"{at}.mlp.c_fc", f"{at}.mlp.c_proj"),
    )
