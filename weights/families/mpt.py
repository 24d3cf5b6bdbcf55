"""MPT: ALiBi, no bias anywhere, one matrix for queries, keys and values."""

from __future__ import annotations

from typing import Any

from weights.checkpoint import ModelConfig
from weights.families.family import (
    Family,
    Gguf,
    GgufNames,
    Shapes,
    always,
    full_layers,
    head_dim,
    in_layers,
    with_biases,
)
from weights.fields import Fields

NORMS = ("low_precision_layernorm", "layernorm")  # the same in float32


def config(fields: Fields) -> ModelConfig:
    hidden_size, num_heads = fields.count("d_model"), fields.count("n_heads")
    num_layers = fields.count("n_layers", maximum=4096)
    width = head_dim(Fields({}, fields.source), hidden_size, num_heads)
    attention = fields.nested("attn_config") or Fields({}, fields.source)
    _refuse_variants(fields, attention)
    has_limit = bool(attention.raw.get("clip_qkv"))  # 0 is none
    return ModelConfig(
        family="mpt",
        vocab_size=fields.count("vocab_size"),
        hidden_size=hidden_size,
        intermediate_size=4 * hidden_size,
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=num_heads,
        head_dim=width,
        max_position_embeddings=fields.count("max_seq_len", 2048),
        norm_eps=fields.positive("layer_norm_epsilon", 1e-5),
        activation="gelu",
        attention_scale=attention.positive("softmax_scale", width**-0.5),
        layer_types=full_layers(num_layers),
        alibi_max_bias=attention.positive("alibi_bias_max", 8.0),
        qkv_limit=attention.positive("clip_qkv") if has_limit else None,
    )


def _refuse_variants(fields: Fields, attention: Fields) -> None:
    fields.must_be("no_bias", True)
    fields.must_be("norm_type", *NORMS)
    fields.must_be("logit_scale")
    fields.must_be("expansion_ratio", 4)
    attention.must_be("attn_type", "multihead_attention")
    # transformers' class has ALiBi whatever the config says; a model without it has positions.
    if attention.raw and "alibi" not in attention.raw:
        raise attention.error("alibi", "true")
    for name, only in {"alibi": True, "prefix_lm": False, "qk_ln": False}.items():
        attention.must_be(name, only)


def shapes(config: ModelConfig) -> Shapes:
    C, F = config.hidden_size, config.intermediate_size
    layer = with_biases(
        {
            "norm_1": (C,),
            "attn.Wqkv": (3 * C, C),
            "attn.out_proj": (C, C),
            "norm_2": (C,),
            "ffn.up_proj": (F, C),
            "ffn.down_proj": (C, F),
        },
        has_bias=False,
    )
    named: Shapes = {
        "transformer.wte.weight": (config.vocab_size, C),
        "transformer.norm_f.weight": (C,),
    }
    return named | in_layers("transformer.blocks.{}.", config.num_layers, layer)


def gguf_config(metadata: Fields, facts: Fields) -> dict[str, Any]:
    hidden_size = metadata.count("embedding_length")
    metadata.must_be("feed_forward_length", 4 * hidden_size)
    num_heads = metadata.count("attention.head_count")
    metadata.must_be("attention.head_count_kv", num_heads)
    return {
        "model_type": "mpt",
        "vocab_size": facts.raw["vocab_size"],
        "d_model": hidden_size,
        "n_layers": metadata.count("block_count"),
        "n_heads": num_heads,
        "max_seq_len": metadata.count("context_length"),
        "layer_norm_epsilon": metadata.positive("attention.layer_norm_epsilon", 1e-5),
        "attn_config": {
            "alibi": True,
            "alibi_bias_max": metadata.positive("attention.max_alibi_bias"),
            "clip_qkv": metadata.raw.get("attention.clamp_kqv"),
        },
    }


BLOCK = "transformer.blocks.{}."
GGUF_NAMES = GgufNames(
    whole={
        "token_embd.weight": ("transformer.wte.weight", "none"),
        "output_norm.weight": ("transformer.norm_f.weight", "none"),
        "output.weight": ("lm_head.weight", "none"),
    },
    block={
        "attn_norm.weight": (f"{BLOCK}norm_1.weight", "none"),
        "attn_qkv.weight": (f"{BLOCK}attn.Wqkv.weight", "none"),
        "attn_output.weight": (f"{BLOCK}attn.out_proj.weight", "none"),
        "ffn_norm.weight": (f"{BLOCK}norm_2.weight", "none"),
        "ffn_up.weight": (f"{BLOCK}ffn.up_proj.weight", "none"),
        "ffn_down.weight": (f"{BLOCK}ffn.down_proj.weight", "none"),
    },
)
FAMILY = Family(
    name="mpt",
    model_types=("mpt",),
    architectures=("MptForCausalLM", "MPTForCausalLM", "MptModel"),
    prefix="transformer.",
    embedding="transformer.wte.weight",
    config=config,
    shapes=shapes,
    gguf=Gguf("mpt", gguf_config, always(GGUF_NAMES)),
)
