"""
Phi-3, Phi-4-mini: Llama with one matrix for queries, keys and values and one for gate and up;
rotary positions over a part of a head, of two scales.
"""

from __future__ import annotations

from model.assemble import Parts
from model.families.pieces import attention_over, decoder, fused_qkv, linear, rms_norm
from model.transformer import Block, FusedGatedMLP, Transformer
from weights.checkpoint import ModelConfig


def build(config: ModelConfig, parts: Parts) -> Transformer:
    return decoder(config, parts, _block, rms_norm(config, parts, "model.norm"))


def _block(config: ModelConfig, parts: Parts, layer: int) -> Block:
    at = f"model.layers.{layer}"
    qkv = fused_qkv(config, linear(parts, f"{at}.self_attn.qkv_proj"))
    output = linear(parts, f"{at}.self_attn.o_proj")
    return Block(
        attention_norm=rms_norm(config, parts, f"{at}.input_layernorm"),
        attention=attention_over(config, layer, qkv, output),
        mlp_norm=rms_norm(config, parts, f"{at}.post_attention_layernorm"),
        mlp=FusedGatedMLP(
            parts.activation(config.activation),
            linear(parts, f"{at}.mlp.gate_up_proj", "mlp"),
            linear(parts, f"{at}.mlp.down_proj", "mlp"),
        ),
    )
