"""
Llama 1 to 3.2, SmolLM, SmolLM2; and with a thing more each Qwen 2 (biases), Qwen 3 (normed queries
and keys), SmolLM3 (layers without rotary positions) and Granite (four multipliers).

RMSNorm, rotary grouped-query attention, a SiLU-gated MLP.
"""

from __future__ import annotations

from model.assemble import Parts
from model.families.pieces import attention, decoder, gated_mlp, rms_norm
from model.transformer import Block, Transformer
from weights.checkpoint import ModelConfig


def build(config: ModelConfig, parts: Parts) -> Transformer:
    return decoder(config, parts, _block, rms_norm(config, parts, "model.norm"))


def _block(config: ModelConfig, parts: Parts, layer: int) -> Block:
    at = f"model.layers.{layer}"
    return Block(
        attention_norm=rms_norm(config, parts, f"{at}.input_layernorm"),
        attention=attention(config, parts, layer, f"{at}.self_attn"),
        mlp_norm=rms_norm(config, parts, f"{at}.post_attention_layernorm"),
        mlp=gated_mlp(config, parts, f"{at}.mlp"),
    )
