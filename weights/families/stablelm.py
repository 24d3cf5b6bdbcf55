"""StableLM: norms with biases, a quarter of each head rotated, in some sizes a parallel block."""

from __future__ import annotations

from typing import Any

from weights.checkpoint import ModelConfig
from weights.families.decoder import (
    LAYER,
    MLP_NAMES,
    Names,
    attention_names,
    common,
    decoder_family,
    decoder_shapes,
    gated_mlp,
    gguf_names,
    gguf_words,
    has_tensor,
    norms,
    projections,
)
from weights.families.family import Gguf, Shapes, full_layers
from weights.fields import Fields
from weights.rope import read_rope


def config(fields: Fields) -> ModelConfig:
    read = common(fields, context=4096, eps=("layer_norm_eps", 1e-5))
    partial = fields.positive("rope_pct", 0.25)  # an older name
    is_parallel = fields.flag("use_parallel_residual", False)
    return ModelConfig(
        **read,
        family="stablelm",
        layer_types=full_layers(read["num_layers"]),
        ropes={"full": read_rope(fields, read["head_dim"], partial=partial)},
        block_order="parallel" if is_parallel else "pre_norm",
        attention_bias=fields.flag("use_qkv_bias", False),
        has_qk_norm=fields.flag("qk_layernorm", False),
    )


def shapes(config: ModelConfig) -> Shapes:
    D = config.head_dim
    layer = norms(config, "input_layernorm", has_bias=True)
    if config.block_order == "pre_norm":
        layer |= norms(config, "post_attention_layernorm", has_bias=True)
    layer |= projections(config, config.attention_bias, output_has_bias=False)
    if config.has_qk_norm:
        for name, count in (("q", config.num_heads), ("k", config.num_kv_heads)):
            at = f"self_attn.{name}_layernorm.norms"
            layer |= {f"{at}.{head}.weight": (D,) for head in range(count)}
    return decoder_shapes(config, layer | gated_mlp(config), ("norm.weight", "norm.bias"))


def gguf_config(metadata: Fields, facts: Fields) -> dict[str, Any]:
    return gguf_words(metadata, facts, "stablelm") | {
        "layer_norm_eps": metadata.positive("attention.layer_norm_epsilon"),
        "use_parallel_residual": not has_tensor(facts, "blk.0.ffn_norm.weight"),
        "use_qkv_bias": has_tensor(facts, "blk.0.attn_q.bias"),
        "qk_layernorm": has_tensor(facts, "blk.0.attn_q_norm.weight"),
    }


HEAD_NORM_NAMES: Names = {
    f"attn_{x}_norm.weight": (
        f"{LAYER}self_attn.{x}_layernorm.norms.{{{{}}}}.weight",
        "stacked",
    )
    for x in "qk"
}
NAMES = gguf_names(attention_names(is_paired=False), MLP_NAMES, HEAD_NORM_NAMES)


GGUF = Gguf("stablelm", gguf_config, NAMES)
FAMILY = decoder_family("stablelm", "StableLm", config, shapes, GGUF)
