"""StarCoder 2: norms and matrices with biases, a plain GELU MLP, a window in every layer."""

from __future__ import annotations

from model.assemble import Parts
from model.families.pieces import attention, decoder, layer_norm, plain_mlp
from model.transformer import Block, Transformer
from weights.checkpoint import ModelConfig


def build(config: ModelConfig, parts: Parts) -> Transformer:
    return decoder(config, parts, _block, layer_norm(config, parts, "model.norm"))


def _block(config: ModelConfig, parts: Parts, layer: int) -> Block:
    at = f"model.layers.{layer}"
    return Block(
        attention_norm=layer_norm(config, parts, f"{at}.input_layernorm"),
        attention=attention(config, parts, layer, f"{at}.self_attn"),
        mlp_norm=layer_norm(config, parts, f"{at}.post_attention_layernorm"),
        mlp=plain_mlp(config, parts, f"{at}.mlp.c_fc", f"{at}.mlp.c_proj"),
    )
