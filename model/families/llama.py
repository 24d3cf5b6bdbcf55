"""
Llama 1 to 3.2, SmolLM, SmolLM2; and with a thing more each Qwen 2 (biases), Qwen 3 (normed queries
and keys), SmolLM3 (layers without rotary positions) and Granite (four multipliers).

RMSNorm, rotary grouped-query attention, a SiLU-gated MLP.
"""

from __future__ import annotations

from dataclasses import replace

from model.assemble import Parts
from model.families.pieces import (
    attention,
    embedding,
    frequencies,
    gated_mlp,
    rms_norm,
    rope_scale,
)
from model.transformer import Attention, Block, Transformer
from weights.checkpoint import ModelConfig


def build(config: ModelConfig, parts: Parts) -> Transformer:
    return Transformer(
        embedding=embedding(config, parts, "model.embed_tokens"),
        blocks=[_block(config, parts, layer) for layer in range(config.num_layers)],
        final_norm=rms_norm(config, parts, "model.norm"),
        frequencies=frequencies(config),
        rope_scale=rope_scale(config),
        kernels=parts.kernels,
    )


def _block(config: ModelConfig, parts: Parts, layer: int) -> Block:
    at = f"model.layers.{layer}"
    return Block(
        attention_norm=rms_norm(config, parts, f"{at}.input_layernorm"),
        attention=_attention(config, parts, layer),
        mlp_norm=rms_norm(config, parts, f"{at}.post_attention_layernorm"),
        mlp=gated_mlp(config, parts, f"{at}.mlp"),
    )


def _attention(config: ModelConfig, parts: Parts, layer: int) -> Attention:
    at = f"model.layers.{layer}.self_attn"
    plain = attention(config, parts, layer, at, "o_proj")
    if not config.has_qk_norm:
        return plain
    q, k = (rms_norm(config, parts, f"{at}.{x}_norm") for x in "qk")
    return replace(plain, q_norm=q, k_norm=k)
