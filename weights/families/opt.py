"""OPT: learned positions, ReLU; the 350M norms sums and has a narrow tied matrix."""

from __future__ import annotations

from weights.checkpoint import ModelConfig
from weights.families.decoder import projections
from weights.families.family import (
    ACTIVATIONS,
    Family,
    Shapes,
    full_layers,
    head_dim,
    in_layers,
    with_biases,
)
from weights.fields import Fields

OFFSET = 2  # rows of the table of positions before the first
EPS = 1e-5  # torch's own: the config has none


def config(fields: Fields) -> ModelConfig:
    hidden_size, num_heads = fields.count("hidden_size"), fields.count("num_attention_heads")
    num_layers = fields.count("num_hidden_layers", maximum=4096)
    embedding_size = fields.count("word_embed_proj_dim", hidden_size)
    has_bias = fields.flag("enable_bias", True)
    fields.must_be("layer_norm_elementwise_affine", True)
    fields.must_be("_remove_final_layer_norm", False)
    is_pre_norm = fields.flag("do_layer_norm_before", True)
    return ModelConfig(
        family="opt",
        vocab_size=fields.count("vocab_size"),
        hidden_size=hidden_size,
        intermediate_size=fields.count("ffn_dim"),
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=num_heads,
        head_dim=head_dim(Fields({}, fields.source), hidden_size, num_heads),
        max_position_embeddings=fields.count("max_position_embeddings", 2048),
        norm_eps=EPS,
        activation=fields.choice("activation_function", ACTIVATIONS, "relu"),
        attention_scale=(hidden_size // num_heads) ** -0.5,
        layer_types=full_layers(num_layers),
        block_order="pre_norm" if is_pre_norm else "post_norm",
        embedding_size=None if embedding_size == hidden_size else embedding_size,
        attention_bias=has_bias,
        mlp_bias=has_bias,
    )


def shapes(config: ModelConfig) -> Shapes:
    C, F = config.hidden_size, config.intermediate_size
    E = config.embedding_size or C
    layer = with_biases({"self_attn_layer_norm": (C,), "final_layer_norm": (C,)})
    for name, shape in projections(config, config.attention_bias).items():
        layer[name.replace("o_proj", "out_proj")] = shape
    layer |= with_biases({"fc1": (F, C), "fc2": (C, F)}, config.mlp_bias)
    named: Shapes = {
        "embed_tokens.weight": (config.vocab_size, E),
        "embed_positions.weight": (config.max_position_embeddings + OFFSET, C),
    }
    if config.block_order == "pre_norm":
        named |= with_biases({"final_layer_norm": (C,)})
    if config.embedding_size is not None:
        named |= {"project_in.weight": (C, E), "project_out.weight": (E, C)}
    named |= in_layers("layers.{}.", config.num_layers, layer)
    return {f"model.decoder.{name}": shape for name, shape in named.items()}


FAMILY = Family(
    name="opt",
    model_types=("opt",),
    architectures=("OPTForCausalLM", "OPTModel"),
    prefix="model.",
    embedding="model.decoder.embed_tokens.weight",
    config=config,
    shapes=shapes,
    gguf=None,
)
