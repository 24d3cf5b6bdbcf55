"""
Falcon: rotary positions or ALiBi, a plain GELU MLP beside the attention or behind it. The old
decoder has one key-value head or as many as queries and one norm a block, the new one groups, and
mostly two norms.
"""

from __future__ import annotations

from model.assemble import Parts
from model.families import bloom
from model.families.pieces import decoder, grouped_attention, layer_norm, plain_mlp
from model.transformer import ParallelBlock, Transformer
from weights.checkpoint import ModelConfig


def build(config: ModelConfig, parts: Parts) -> Transformer:
    return decoder(
        config,
        parts,
        _parallel_block if config.block_order == "parallel" else bloom.block,
        layer_norm(config, parts, "transformer.ln_f"),
        table="transformer.word_embeddings",
    )


def _parallel_block(config: ModelConfig, parts: Parts, layer: int) -> ParallelBlock:
    at = f"transformer.h.{layer}"
    has_two_norms = f"{at}.ln_mlp.weight" in parts.tensors
    norm = "ln_attn" if has_two_norms else "input_layernorm"
    return ParallelBlock(
        attention_norm=layer_norm(config, parts, f"{at}.{norm}"),
        attention=grouped_attention(config, parts, layer, f"{at}.self_attention"),
        mlp=plain_mlp(config, parts, f"{at}.mlp.dense_h_to_4h", f"{at}.mlp.dense_4h_to_h"),
        mlp_norm=layer_norm(config, parts, f"{at}.ln_mlp") if has_two_norms else None,
    )
