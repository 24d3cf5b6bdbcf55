"""BLOOM: ALiBi, a norm on what was looked up, each head's query, key and value side by side."""

from __future__ import annotations

from typing import Any

from weights.checkpoint import ModelConfig
from weights.families.family import (
    Change,
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

ALIBI_MAX_BIAS = 8.0  # in the model's code; its config has none
CONTEXT = 2048  # what it was trained on, where the config does not say


def config(fields: Fields) -> ModelConfig:
    older = fields.has("n_embed")
    hidden_size = fields.count("n_embed" if older else "hidden_size")
    num_heads, num_layers = fields.count("n_head"), fields.count("n_layer", maximum=4096)
    width = head_dim(Fields({}, fields.source), hidden_size, num_heads)
    fields.must_be("apply_residual_connection_post_layernorm", False)
    return ModelConfig(
        family="bloom",
        vocab_size=fields.count("vocab_size"),
        hidden_size=hidden_size,
        intermediate_size=4 * hidden_size,
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=num_heads,
        head_dim=width,
        max_position_embeddings=fields.count("seq_length", CONTEXT),
        norm_eps=fields.positive("layer_norm_epsilon", 1e-5),
        activation="gelu_tanh",
        attention_scale=width**-0.5,
        layer_types=full_layers(num_layers),
        alibi_max_bias=ALIBI_MAX_BIAS,
        attention_bias=True,
        mlp_bias=True,
    )


def shapes(config: ModelConfig) -> Shapes:
    C, F = config.hidden_size, config.intermediate_size
    layer = with_biases(
        {
            "input_layernorm": (C,),
            "self_attention.query_key_value": (3 * C, C),
            "self_attention.dense": (C, C),
            "post_attention_layernorm": (C,),
            "mlp.dense_h_to_4h": (F, C),
            "mlp.dense_4h_to_h": (C, F),
        }
    )
    named: Shapes = {"transformer.word_embeddings.weight": (config.vocab_size, C)}
    named |= with_biases({"transformer.word_embeddings_layernorm": (C,), "transformer.ln_f": (C,)})
    return named | in_layers("transformer.h.{}.", config.num_layers, layer)


def gguf_config(metadata: Fields, facts: Fields) -> dict[str, Any]:
    hidden_size = metadata.count("embedding_length")
    metadata.must_be("feed_forward_length", 4 * hidden_size)
    return {
        "model_type": "bloom",
        "vocab_size": facts.raw["vocab_size"],
        "hidden_size": hidden_size,
        "n_layer": metadata.count("block_count"),
        "n_head": metadata.count("attention.head_count"),
        "seq_length": metadata.count("context_length"),
        "layer_norm_epsilon": metadata.positive("attention.layer_norm_epsilon"),
    }


def _both(gguf: str, canonical: str, change: Change = "none") -> dict[str, tuple[str, Change]]:
    return {f"{gguf}.{end}": (f"{canonical}.{end}", change) for end in ("weight", "bias")}


H = "transformer.h.{}."
GGUF_NAMES = GgufNames(
    whole={
        "token_embd.weight": ("transformer.word_embeddings.weight", "none"),
        "output.weight": ("lm_head.weight", "none"),
        **_both("token_embd_norm", "transformer.word_embeddings_layernorm"),
        **_both("output_norm", "transformer.ln_f"),
    },
    block={
        **_both("attn_norm", f"{H}input_layernorm"),
        **_both("attn_qkv", f"{H}self_attention.query_key_value", "grouped"),
        **_both("attn_output", f"{H}self_attention.dense"),
        **_both("ffn_norm", f"{H}post_attention_layernorm"),
        **_both("ffn_up", f"{H}mlp.dense_h_to_4h"),
        **_both("ffn_down", f"{H}mlp.dense_4h_to_h"),
    },
)
FAMILY = Family(
    name="bloom",
    model_types=("bloom",),
    architectures=("BloomForCausalLM", "BloomModel"),
    prefix="transformer.",
    embedding="transformer.word_embeddings.weight",
    config=config,
    shapes=shapes,
    gguf=Gguf("bloom", gguf_config, always(GGUF_NAMES)),
)
