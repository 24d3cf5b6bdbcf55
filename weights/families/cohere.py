"""
Cohere's Command R and R7B: one norm a block, without bias, before attention and MLP; scaled logits.
R7B: three layers with a window and rotary positions to each without either.
"""

from __future__ import annotations

from typing import Any

from weights.checkpoint import ModelConfig
from weights.families.decoder import (
    MLP_NAMES,
    QK_NORM_NAMES,
    attention_names,
    decoder_shapes,
    gated_mlp,
    gguf_names,
    gguf_words,
    has_tensor,
    norms,
    projections,
    sizes,
)
from weights.families.family import (
    ACTIVATIONS,
    Family,
    Gguf,
    Shapes,
    every_nth_full,
    full_layers,
    listed_layers,
)
from weights.fields import Fields
from weights.rope import read_rope


def first(fields: Fields) -> ModelConfig:
    common = sizes(fields)
    rope = read_rope(fields, common["head_dim"], default_theta=500_000.0)
    return ModelConfig(
        **common | _rest(fields, common["head_dim"]),
        family="cohere",
        layer_types=full_layers(common["num_layers"]),
        ropes={"full": rope},
        has_qk_norm=fields.flag("use_qk_norm", False),
    )


def second(fields: Fields) -> ModelConfig:
    common = sizes(fields)
    num_layers = common["num_layers"]
    older = every_nth_full(num_layers, fields.count("sliding_window_pattern", 4))
    fields.must_be("use_qk_norm", False)
    fields.must_be("use_gated_activation", True)
    fields.must_be("use_parallel_block", True)
    return ModelConfig(
        **common | _rest(fields, common["head_dim"]),
        family="cohere2",
        layer_types=listed_layers(fields, num_layers, older),
        sliding_window=fields.count("sliding_window", 4096),
        ropes={"sliding": read_rope(fields, common["head_dim"])},
    )


def _rest(fields: Fields, width: int) -> dict[str, Any]:
    return {
        "max_position_embeddings": fields.count("max_position_embeddings", 8192),
        "norm_eps": fields.positive("layer_norm_eps", 1e-5),
        "activation": fields.choice("hidden_act", ACTIVATIONS, "silu"),
        "attention_scale": width**-0.5,
        "block_order": "parallel",
        "logit_scale": fields.positive("logit_scale", 0.0625),
        "attention_bias": fields.flag("attention_bias", False),
    }


def shapes(config: ModelConfig) -> Shapes:
    D = config.head_dim
    layer = norms(config, "input_layernorm") | gated_mlp(config)
    layer |= projections(config, config.attention_bias)
    if config.has_qk_norm:
        layer |= {
            "self_attn.q_norm.weight": (config.num_heads, D),
            "self_attn.k_norm.weight": (config.num_kv_heads, D),
        }
    return decoder_shapes(config, layer, ("norm.weight",))


def gguf_first(metadata: Fields, facts: Fields) -> dict[str, Any]:
    return _gguf(metadata, facts, "cohere") | {
        "use_qk_norm": has_tensor(facts, "blk.0.attn_q_norm.weight"),
    }


def gguf_second(metadata: Fields, facts: Fields) -> dict[str, Any]:
    """The pattern of four is in llama.cpp's code, not in the file."""
    return _gguf(metadata, facts, "cohere2") | {
        "sliding_window": metadata.count("attention.sliding_window"),
    }


def _gguf(metadata: Fields, facts: Fields, model_type: str) -> dict[str, Any]:
    return gguf_words(metadata, facts, model_type) | {
        "layer_norm_eps": metadata.positive("attention.layer_norm_epsilon"),
        "logit_scale": metadata.positive("logit_scale"),
        "attention_bias": has_tensor(facts, "blk.0.attn_q.bias"),
    }


NAMES = gguf_names(attention_names(is_paired=False), MLP_NAMES, QK_NORM_NAMES)
FIRST = Family(
    name="cohere",
    model_types=("cohere",),
    architectures=("CohereForCausalLM", "CohereModel"),
    prefix="model.",
    embedding="model.embed_tokens.weight",
    config=first,
    shapes=shapes,
    gguf=Gguf("command-r", gguf_first, NAMES),
)
SECOND = Family(
    name="cohere2",
    model_types=("cohere2",),
    architectures=("Cohere2ForCausalLM", "Cohere2Model"),
    prefix="model.",
    embedding="model.embed_tokens.weight",
    config=second,
    shapes=shapes,
    gguf=Gguf("cohere2", gguf_second, NAMES),
)
