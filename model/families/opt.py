"""
OPT: learned positions from row 2 of their table on, ReLU. The 350M norms sums, has no final norm,
and a tied matrix of half its width with a projection at each end.
"""

from __future__ import annotations

from model.assemble import Parts
from model.families.pieces import attention, decoder, layer_norm, linear, plain_mlp
from model.linear import Linear
from model.transformer import Block, PostNormBlock, Transformer
from weights.checkpoint import ModelConfig

FIRST_POSITION = 2  # rows 0 and 1 were for padding


def build(config: ModelConfig, parts: Parts) -> Transformer:
    norm = "model.decoder.final_layer_norm"
    return decoder(
        config,
        parts,
        _post_norm_block if config.block_order == "post_norm" else _block,
        layer_norm(config, parts, norm) if f"{norm}.weight" in parts.tensors else None,
        table="model.decoder.embed_tokens",
        positions=parts.vector("model.decoder.embed_positions.weight")[FIRST_POSITION:],
        entry=_projection(config, parts, "model.decoder.project_in"),
        final=_projection(config, parts, "model.decoder.project_out"),
    )


def _projection(config: ModelConfig, parts: Parts, name: str) -> Linear | None:
    return None if config.embedding_size is None else linear(parts, name)


def _block(config: ModelConfig, parts: Parts, layer: int) -> Block:
    at = f"model.decoder.layers.{layer}"
    return Block(
        attention_norm=layer_norm(config, parts, f"{at}.self_attn_layer_norm"),
        attention=attention(config, parts, layer, f"{at}.self_attn", "out_proj"),
        mlp_norm=layer_norm(config, parts, f"{at}.final_layer_norm"),
        mlp=plain_mlp(config, parts, f"{at}.fc1", f"{at}.fc2"),
    )


def _post_norm_block(config: ModelConfig, parts: Parts, layer: int) -> PostNormBlock:
    at = f"model.decoder.layers.{layer}"
    return PostNormBlock(
        attention=attention(config, parts, layer, f"{at}.self_attn", "out_proj"),
        attention_norm=layer_norm(config, parts, f"{at}.self_attn_layer_norm"),
        mlp=plain_mlp(config, parts, f"{at}.fc1", f"{at}.fc2"),
        mlp_norm=layer_norm(config, parts, f"{at}.final_layer_norm"),
    )
