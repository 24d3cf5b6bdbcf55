"""StarCoder 2: norms and matrices with biases, a plain GELU MLP, a window in every layer."""

from __future__ import annotations

from typing import Any

from weights.checkpoint import ModelConfig
from weights.families.decoder import (
    attention_names,
    both,
    common,
    decoder_family,
    decoder_shapes,
    for_kinds,
    gguf_names,
    gguf_words,
    has_tensor,
    norms,
    projections,
)
from weights.families.family import (
    Gguf,
    Shapes,
    all_sliding,
    full_layers,
    with_biases,
)
from weights.fields import Fields
from weights.rope import read_rope

PUBLISHED_WINDOW = 4096  # of all three sizes


def config(fields: Fields) -> ModelConfig:
    read = common(fields, 4096, ("norm_epsilon", 1e-5), "gelu_pytorch_tanh")
    has_window = fields.has("sliding_window")
    layer_types = (all_sliding if has_window else full_layers)(read["num_layers"])
    has_bias = fields.flag("use_bias", True)
    fields.must_be("mlp_type", "default")
    fields.must_be("norm_type", "layer_norm")
    return ModelConfig(
        **read,
        family="starcoder2",
        layer_types=layer_types,
        sliding_window=fields.count("sliding_window") if has_window else None,
        ropes=for_kinds(layer_types, read_rope(fields, read["head_dim"])),
        attention_bias=has_bias,
        mlp_bias=has_bias,
    )


def shapes(config: ModelConfig) -> Shapes:
    C, F = config.hidden_size, config.intermediate_size
    layer = norms(config, "input_layernorm", "post_attention_layernorm", has_bias=True)
    layer |= projections(config, config.attention_bias)
    layer |= with_biases({"mlp.c_fc": (F, C), "mlp.c_proj": (C, F)}, config.mlp_bias)
    return decoder_shapes(config, layer, ("norm.weight", "norm.bias"))


def gguf_config(metadata: Fields, facts: Fields) -> dict[str, Any]:
    """
    The converter drops the window and llama.cpp looks at everything, which is the model only up to
    the window: no further is it served.
    """
    words = gguf_words(metadata, facts, "starcoder2")
    return words | {
        "norm_epsilon": metadata.positive("attention.layer_norm_epsilon"),
        "max_position_embeddings": min(words["max_position_embeddings"], PUBLISHED_WINDOW),
        "use_bias": has_tensor(facts, "blk.0.attn_q.bias"),
    }


NAMES = gguf_names(
    attention_names(is_paired=False),
    both("ffn_norm", "post_attention_layernorm"),
    both("ffn_up", "mlp.c_fc"),
    both("ffn_down", "mlp.c_proj"),
)
GGUF = Gguf("starcoder2", gguf_config, NAMES)
FAMILY = decoder_family("starcoder2", "Starcoder2", config, shapes, GGUF)
