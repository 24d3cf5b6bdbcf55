"""
GPT (2018) and GPT-2: learned positions, norms with biases, fused query-key-value, matrices stored
(in,out). GPT norms sums and has no final norm.
"""

from __future__ import annotations

from typing import Any

from weights.checkpoint import ModelConfig
from weights.families.family import (
    ACTIVATIONS,
    Activation,
    Family,
    Gguf,
    GgufNames,
    Shapes,
    always,
    full_layers,
    head_dim,
)
from weights.fields import Fields

# The words of the 2018 config are its own: "gelu" is the approximation.
FIRST_ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}


def sizes(fields: Fields) -> dict[str, Any]:
    hidden_size, num_heads = fields.count("n_embd"), fields.count("n_head")
    num_layers = fields.count("n_layer", maximum=4096)
    return {
        "vocab_size": fields.count("vocab_size"),
        "hidden_size": hidden_size,
        "intermediate_size": fields.count("n_inner", 4 * hidden_size),
        "num_layers": num_layers,
        "num_heads": num_heads,
        "num_kv_heads": num_heads,
        "head_dim": head_dim(Fields({}, fields.source), hidden_size, num_heads),
        "max_position_embeddings": fields.count("n_positions"),
        "norm_eps": fields.positive("layer_norm_epsilon", 1e-5),
        "layer_types": full_layers(num_layers),
        "attention_bias": True,
        "mlp_bias": True,
    }


def first(fields: Fields) -> ModelConfig:
    common = sizes(fields)
    fields.must_be("n_inner", 4 * common["hidden_size"])
    return ModelConfig(
        **common,
        family="gpt",
        activation=fields.choice("afn", FIRST_ACTIVATIONS, "gelu"),
        attention_scale=common["head_dim"] ** -0.5,
        block_order="post_norm",
    )


def config(fields: Fields) -> ModelConfig:
    common = sizes(fields)
    fields.must_be("add_cross_attention", False)
    fields.must_be("scale_attn_by_inverse_layer_idx", False)
    # reorder_and_upcast_attn changes where float32 begins, not the arithmetic: this server is
    # float32 throughout.
    is_scaled = fields.flag("scale_attn_weights", True)
    return ModelConfig(
        **common,
        family="gpt2",
        activation=fields.choice("activation_function", ACTIVATIONS, "gelu_new"),
        attention_scale=common["head_dim"] ** -0.5 if is_scaled else 1.0,
    )


def first_shapes(config: ModelConfig) -> Shapes:
    tables: Shapes = {
        "transformer.tokens_embed.weight": (config.vocab_size, config.hidden_size),
        "transformer.positions_embed.weight": (config.max_position_embeddings, config.hidden_size),
    }
    return tables | _blocks(config)


def shapes(config: ModelConfig) -> Shapes:
    C = config.hidden_size
    named: Shapes = {
        "transformer.wte.weight": (config.vocab_size, C),
        "transformer.wpe.weight": (config.max_position_embeddings, C),
        "transformer.ln_f.weight": (C,),
        "transformer.ln_f.bias": (C,),
    }
    return named | _blocks(config)


def _blocks(config: ModelConfig) -> Shapes:
    C, F = config.hidden_size, config.intermediate_size
    named: Shapes = {}
    matrices = {
        "attn.c_attn": (C, 3 * C),
        "attn.c_proj": (C, C),
        "mlp.c_fc": (C, F),
        "mlp.c_proj": (F, C),
    }
    for layer in (f"transformer.h.{i}" for i in range(config.num_layers)):
        for norm in ("ln_1", "ln_2"):
            named |= {f"{layer}.{norm}.weight": (C,), f"{layer}.{norm}.bias": (C,)}
        for name, shape in matrices.items():
            named |= {f"{layer}.{name}.weight": shape, f"{layer}.{name}.bias": shape[1:]}
    return named


def gguf_config(metadata: Fields, facts: Fields) -> dict[str, Any]:
    return {
        "model_type": "gpt2",
        "vocab_size": facts.raw["vocab_size"],
        "n_embd": metadata.count("embedding_length"),
        "n_inner": metadata.count("feed_forward_length"),
        "n_layer": metadata.count("block_count"),
        "n_head": metadata.count("attention.head_count"),
        "n_positions": metadata.count("context_length"),
        "layer_norm_epsilon": metadata.positive("attention.layer_norm_epsilon"),
        "activation_function": "gelu_new",
    }


GGUF_NAMES = GgufNames(
    whole={
        "token_embd.weight": ("transformer.wte.weight", "none"),
        "position_embd.weight": ("transformer.wpe.weight", "none"),
        "output_norm.weight": ("transformer.ln_f.weight", "none"),
        "output_norm.bias": ("transformer.ln_f.bias", "none"),
        "output.weight": ("lm_head.weight", "none"),
    },
    block={
        "attn_norm.weight": ("transformer.h.{}.ln_1.weight", "none"),
        "attn_norm.bias": ("transformer.h.{}.ln_1.bias", "none"),
        "ffn_norm.weight": ("transformer.h.{}.ln_2.weight", "none"),
        "ffn_norm.bias": ("transformer.h.{}.ln_2.bias", "none"),
        "attn_qkv.weight": ("transformer.h.{}.attn.c_attn.weight", "transposed"),
        "attn_qkv.bias": ("transformer.h.{}.attn.c_attn.bias", "none"),
        "attn_output.weight": ("transformer.h.{}.attn.c_proj.weight", "transposed"),
        "attn_output.bias": ("transformer.h.{}.attn.c_proj.bias", "none"),
        "ffn_up.weight": ("transformer.h.{}.mlp.c_fc.weight", "transposed"),
        "ffn_up.bias": ("transformer.h.{}.mlp.c_fc.bias", "none"),
        "ffn_down.weight": ("transformer.h.{}.mlp.c_proj.weight", "transposed"),
        "ffn_down.bias": ("transformer.h.{}.mlp.c_proj.bias", "none"),
    },
)

FIRST = Family(
    name="gpt",
    model_types=("openai-gpt",),
    architectures=("OpenAIGPTLMHeadModel", "OpenAIGPTModel"),
    prefix="transformer.",
    embedding="transformer.tokens_embed.weight",
    config=first,
    shapes=first_shapes,
    gguf=None,
    ignored=(".attn.bias", "position_ids"),
    is_conv1d=True,
)
FAMILY = Family(
    name="gpt2",
    model_types=("gpt2",),
    architectures=("GPT2LMHeadModel", "GPT2Model"),
    prefix="transformer.",
    embedding="transformer.wte.weight",
    config=config,
    shapes=shapes,
    gguf=Gguf("gpt2", gguf_config, always(GGUF_NAMES)),
    ignored=(".attn.bias", ".attn.masked_bias"),  # causal masks, saved as buffers by old versions
    is_conv1d=True,
)
