"""
Gemma 3 (text): two rotary bases, five sliding layers to each full one, norms on queries and keys,
four norms a block.

Its norms are stored as the distance from one.
"""

from __future__ import annotations

from model.assemble import Parts
from model.rope import inverse_frequencies
from model.transformer import Attention, Block, GatedMLP, RMSNorm, SeparateQKV, Transformer
from weights.checkpoint import ModelConfig


def build(config: ModelConfig, parts: Parts) -> Transformer:
    return Transformer(
        embedding=parts.embedding("model.embed_tokens", config.embedding_scale),
        blocks=[_block(config, parts, layer) for layer in range(config.num_layers)],
        final_norm=_norm(config, parts, "model.norm"),
        frequencies={kind: inverse_frequencies(rope) for kind, rope in config.ropes.items()},
        kernels=parts.kernels,
    )


def _norm(config: ModelConfig, parts: Parts, name: str) -> RMSNorm:
    return RMSNorm(1.0 + parts.vector(f"{name}.weight"), config.norm_eps)


def _block(config: ModelConfig, parts: Parts, layer: int) -> Block:
    at = f"model.layers.{layer}"
    return Block(
        attention_norm=_norm(config, parts, f"{at}.input_layernorm"),
        attention=_attention(config, parts, layer),
        attention_post_norm=_norm(config, parts, f"{at}.post_attention_layernorm"),
        mlp_norm=_norm(config, parts, f"{at}.pre_feedforward_layernorm"),
        mlp=GatedMLP(
            parts.activation(config.activation),
            *(parts.linear(f"{at}.mlp.{x}_proj") for x in ("gate", "up", "down")),
        ),
        mlp_post_norm=_norm(config, parts, f"{at}.post_feedforward_layernorm"),
    )


def _attention(config: ModelConfig, parts: Parts, layer: int) -> Attention:
    at, kind = f"model.layers.{layer}.self_attn", config.layer_types[layer]
    bias = config.attention_bias
    return Attention(
        layer=layer,
        qkv=SeparateQKV(*(parts.linear(f"{at}.{x}_proj", bias) for x in "qkv")),
        output=parts.linear(f"{at}.o_proj", bias),
        head_dim=config.head_dim,
        scale=config.attention_scale,
        layer_type=kind,
        window=config.sliding_window if kind == "sliding" else None,
        q_norm=_norm(config, parts, f"{at}.q_norm"),
        k_norm=_norm(config, parts, f"{at}.k_norm"),
    )
