"""
Falcon: the old decoder has one key-value head (7B) or as many as queries, the new one groups of
them (40B); an MLP beside the attention or behind it; in RW ALiBi for rotary positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from weights.checkpoint import ModelConfig
from weights.families.family import (
    ACTIVATIONS,
    Change,
    Family,
    Gguf,
    GgufNames,
    Shapes,
    check_groups,
    full_layers,
    head_dim,
    in_layers,
    with_biases,
)
from weights.fields import MAX_COUNT, Fields
from weights.rope import read_rope

ALIBI_MAX_BIAS = 8.0  # in the model's code; its config has none


def config(fields: Fields) -> ModelConfig:
    hidden_size = fields.count("hidden_size")
    num_heads = fields.count("num_attention_heads")
    num_layers = fields.count("num_hidden_layers", maximum=4096)
    width = head_dim(Fields({}, fields.source), hidden_size, num_heads)
    has_alibi = fields.flag("alibi", False)
    is_new = fields.flag("new_decoder_architecture", False)
    is_parallel = is_new or fields.flag("parallel_attn", True)
    num_kv_heads = _num_kv_heads(fields, num_heads, is_new)
    check_groups(fields, num_heads, num_kv_heads)
    return ModelConfig(
        family="falcon",
        vocab_size=fields.count("vocab_size"),
        hidden_size=hidden_size,
        intermediate_size=fields.count("ffn_hidden_size", 4 * hidden_size),
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=width,
        max_position_embeddings=fields.count("max_position_embeddings", 2048),
        norm_eps=fields.positive("layer_norm_epsilon", 1e-5),
        activation=fields.choice("activation", ACTIVATIONS, "gelu"),
        attention_scale=width**-0.5,
        layer_types=full_layers(num_layers),
        ropes={} if has_alibi else {"full": read_rope(fields, width)},
        alibi_max_bias=ALIBI_MAX_BIAS if has_alibi else None,
        is_alibi_coarse=has_alibi,
        block_order="parallel" if is_parallel else "pre_norm",
        num_parallel_norms=_num_norms(fields) if is_new else 1,
        attention_bias=fields.flag("bias", False),
        mlp_bias=fields.flag("bias", False),
    )


def _num_kv_heads(fields: Fields, num_heads: int, is_new: bool) -> int:
    if is_new:
        return fields.count("num_kv_heads", num_heads)
    return 1 if fields.flag("multi_query", True) else num_heads


def _num_norms(fields: Fields) -> int:
    return fields.count("num_ln_in_parallel_attn", 2, maximum=2)


def shapes(config: ModelConfig) -> Shapes:
    C, F = config.hidden_size, config.intermediate_size
    qkv = (config.num_heads + 2 * config.num_kv_heads) * config.head_dim
    if config.num_parallel_norms == 2:
        layer = with_biases({"ln_attn": (C,), "ln_mlp": (C,)})
    else:
        layer = with_biases({"input_layernorm": (C,)})
    if config.block_order == "pre_norm":
        layer |= with_biases({"post_attention_layernorm": (C,)})
    matrices = {
        "self_attention.query_key_value": (qkv, C),
        "self_attention.dense": (C, C),
        "mlp.dense_h_to_4h": (F, C),
        "mlp.dense_4h_to_h": (C, F),
    }
    layer |= with_biases(matrices, config.attention_bias)
    named: Shapes = {"transformer.word_embeddings.weight": (config.vocab_size, C)}
    named |= with_biases({"transformer.ln_f": (C,)})
    return named | in_layers("transformer.h.{}.", config.num_layers, layer)


def gguf_config(metadata: Fields, facts: Fields) -> dict[str, Any]:
    """A block of llama.cpp's is parallel, with two norms where the file has a second."""
    num_kv_heads = metadata.count("attention.head_count_kv", 1)
    has_two_norms = "blk.0.attn_norm_2.weight" in facts.raw["tensors"]
    return {
        "model_type": "falcon",
        "vocab_size": facts.raw["vocab_size"],
        "hidden_size": metadata.count("embedding_length"),
        "ffn_hidden_size": metadata.count("feed_forward_length"),
        "num_hidden_layers": metadata.count("block_count"),
        "num_attention_heads": metadata.count("attention.head_count"),
        "num_kv_heads": num_kv_heads,
        "new_decoder_architecture": True,
        "num_ln_in_parallel_attn": 2 if has_two_norms else 1,
        # The converter writes 2048 for files whose own context is longer as well.
        "max_position_embeddings": metadata.count("context_length", MAX_COUNT),
        "layer_norm_epsilon": metadata.positive("attention.layer_norm_epsilon"),
        "rope_theta": metadata.positive("rope.freq_base", 10_000.0),
        "rope_scaling": facts.raw.get("rope_scaling"),
    }


H = "transformer.h.{}."
WHOLE: Mapping[str, tuple[str, Change]] = {
    "token_embd.weight": ("transformer.word_embeddings.weight", "none"),
    "output_norm.weight": ("transformer.ln_f.weight", "none"),
    "output_norm.bias": ("transformer.ln_f.bias", "none"),
    "output.weight": ("lm_head.weight", "none"),
}
MATRICES: Mapping[str, tuple[str, Change]] = {
    "attn_qkv.weight": (f"{H}self_attention.query_key_value.weight", "grouped"),
    "attn_output.weight": (f"{H}self_attention.dense.weight", "none"),
    "ffn_up.weight": (f"{H}mlp.dense_h_to_4h.weight", "none"),
    "ffn_down.weight": (f"{H}mlp.dense_4h_to_h.weight", "none"),
}


def gguf_names(config: ModelConfig) -> GgufNames:
    """With two norms the first is the MLP's; the attention's came later and is "attn_norm_2"."""
    norms = {"attn_norm": "input_layernorm"}
    if config.num_parallel_norms == 2:
        norms = {"attn_norm": "ln_mlp", "attn_norm_2": "ln_attn"}
    named: dict[str, tuple[str, Change]] = {
        f"{name}.{end}": (f"{H}{to}.{end}", "none")
        for name, to in norms.items()
        for end in ("weight", "bias")
    }
    return GgufNames(WHOLE, {**MATRICES, **named})


FAMILY = Family(
    name="falcon",
    model_types=("falcon",),
    architectures=("FalconForCausalLM", "FalconModel"),
    prefix="transformer.",
    embedding="transformer.word_embeddings.weight",
    config=config,
    shapes=shapes,
    gguf=Gguf("falcon", gguf_config, gguf_names),
)
