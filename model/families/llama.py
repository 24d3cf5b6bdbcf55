"""Llama 1 to 3.2, SmolLM, SmolLM2: RMSNorm, rotary grouped-query attention, a SiLU-gated MLP."""

from __future__ import annotations

from model.assemble import Parts
from model.rope import inverse_frequencies
from model.transformer import Attention, Block, GatedMLP, RMSNorm, SeparateQKV, Transformer
from weights.checkpoint import ModelConfig


def build(config: ModelConfig, parts: Parts) -> Transformer:
    return Transformer(
        embedding=parts.embedding("model.embed_tokens"),
        blocks=[_block(config, parts, layer) for layer in range(config.num_layers)],
        final_norm=RMSNorm(parts.vector("model.norm.weight"), config.norm_eps),
        frequencies={kind: inverse_frequencies(rope) for kind, rope in config.ropes.items()},
        kernels=parts.kernels,
    )


def _block(config: ModelConfig, parts: Parts, layer: int) -> Block:
    at = f"model.layers.{layer}"
    bias = config.attention_bias
    qkv = SeparateQKV(*(parts.linear(f"{at}.self_attn.{x}_proj", bias) for x in "qkv"))
    return Block(
        attention_norm=RMSNorm(parts.vector(f"{at}.input_layernorm.weight"), config.norm_eps),
        attention=Attention(
            layer=layer,
            qkv=qkv,
            output=parts.linear(f"{at}.self_attn.o_proj", bias),
            head_dim=config.head_dim,
            scale=config.attention_scale,
            layer_type=config.layer_types[layer],
        ),
        mlp_norm=RMSNorm(parts.vector(f"{at}.post_attention_layernorm.weight"), config.norm_eps),
        mlp=GatedMLP(
            parts.activation(config.activation),
            *(parts.linear(f"{at}.mlp.{x}_proj", config.mlp_bias) for x in ("gate", "up", "down")),
        ),
    )
