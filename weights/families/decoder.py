"""
What the families built after Llama's plan share: the words of their configs, the names of their
tensors in both formats.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from weights.checkpoint import LayerType, ModelConfig, Rope
from weights.families.family import (
    ACTIVATIONS,
    Change,
    Family,
    Gguf,
    GgufNames,
    Shapes,
    always,
    check_groups,
    head_dim,
    in_layers,
    with_biases,
)
from weights.fields import MAX_COUNT, Fields

MAX_LAYERS = 4096
LAYER = "model.layers.{}."


def sizes(fields: Fields, default_head_dim: int | None = None) -> dict[str, Any]:
    """Of ModelConfig. `default_head_dim`: where it is no quotient; None: hidden_size / heads."""
    hidden_size, num_heads = fields.count("hidden_size"), fields.count("num_attention_heads")
    num_kv_heads = fields.count("num_key_value_heads", num_heads)
    check_groups(fields, num_heads, num_kv_heads)
    if default_head_dim is not None and not fields.has("head_dim"):
        width = default_head_dim
    else:
        width = head_dim(fields, hidden_size, num_heads)
    return {
        "vocab_size": fields.count("vocab_size"),
        "hidden_size": hidden_size,
        "intermediate_size": fields.count("intermediate_size"),
        "num_layers": fields.count("num_hidden_layers", maximum=MAX_LAYERS),
        "num_heads": num_heads,
        "num_kv_heads": num_kv_heads,
        "head_dim": width,
    }


def common(
    fields: Fields,
    context: int,
    eps: tuple[str, float] = ("rms_norm_eps", 1e-6),
    activation: str = "silu",
    default_head_dim: int | None = None,
) -> dict[str, Any]:
    """
    Of ModelConfig: sizes and what nearly every family says besides. `context`: positions, `eps`:
    name and value, `activation`: where the config is silent.
    """
    found = sizes(fields, default_head_dim)
    return found | {
        "max_position_embeddings": fields.count("max_position_embeddings", context),
        "norm_eps": fields.positive(*eps),
        "activation": fields.choice("hidden_act", ACTIVATIONS, activation),
        "attention_scale": found["head_dim"] ** -0.5,
    }


def for_kinds(layer_types: tuple[LayerType, ...], rope: Rope) -> dict[LayerType, Rope]:
    """The same rope for each kind of layer that is rotated at all."""
    return {kind: rope for kind in ("full", "sliding") if kind in layer_types}


def decoder_shapes(config: ModelConfig, layer: Shapes, final: tuple[str, ...]) -> Shapes:
    """`layer`: in model.layers.N; `final`: the tensors of the last norm, each as wide as it."""
    C, E = config.hidden_size, config.embedding_size or config.hidden_size
    named: Shapes = {"model.embed_tokens.weight": (config.vocab_size, E)}
    named |= {f"model.{name}": (C,) for name in final}
    return named | in_layers(LAYER, config.num_layers, layer)


def norms(config: ModelConfig, *names: str, has_bias: bool = False) -> Shapes:
    return with_biases(dict.fromkeys(names, (config.hidden_size,)), has_bias)


def projections(
    config: ModelConfig, has_bias: bool = False, output_has_bias: bool | None = None
) -> Shapes:
    """self_attn's four. `output_has_bias`: None is what the others have."""
    C, D = config.hidden_size, config.head_dim
    Q, KV = config.num_heads * D, config.num_kv_heads * D
    qkv = {"self_attn.q_proj": (Q, C), "self_attn.k_proj": (KV, C), "self_attn.v_proj": (KV, C)}
    last = has_bias if output_has_bias is None else output_has_bias
    return with_biases(qkv, has_bias) | with_biases({"self_attn.o_proj": (C, Q)}, last)


def gated_mlp(config: ModelConfig, has_bias: bool = False) -> Shapes:
    C, F = config.hidden_size, config.intermediate_size
    three = {"mlp.gate_proj": (F, C), "mlp.up_proj": (F, C), "mlp.down_proj": (C, F)}
    return with_biases(three, has_bias)


def head_norms(config: ModelConfig) -> Shapes:
    """One for all heads of queries, one for all of keys, where the config has them."""
    names = ("q_norm", "k_norm") if config.has_qk_norm else ()
    return {f"self_attn.{norm}.weight": (config.head_dim,) for norm in names}


def has_tensor(facts: Fields, name: str) -> bool:
    return name in facts.raw["tensors"]


def gguf_words(metadata: Fields, facts: Fields, model_type: str) -> dict[str, Any]:
    """What every architecture's metadata says, in config.json's words."""
    num_heads = metadata.count("attention.head_count")
    whole = max(1, metadata.count("embedding_length") // num_heads)
    width = metadata.count("attention.key_length", whole)
    metadata.must_be("attention.value_length", width)
    metadata.must_be("expert_count", 0)
    return {
        "model_type": model_type,
        "vocab_size": facts.raw["vocab_size"],
        "hidden_size": metadata.count("embedding_length"),
        "intermediate_size": metadata.count("feed_forward_length"),
        "num_hidden_layers": metadata.count("block_count"),
        "num_attention_heads": num_heads,
        "num_key_value_heads": metadata.count("attention.head_count_kv", num_heads),
        "head_dim": width,
        "max_position_embeddings": metadata.count("context_length", MAX_COUNT),
        "rope_theta": metadata.positive("rope.freq_base", 10_000.0),
        "rope_scaling": facts.raw.get("rope_scaling"),
        "partial_rotary_factor": metadata.count("rope.dimension_count", width) / width,
    }


Names = Mapping[str, tuple[str, Change]]

WHOLE: Names = {
    "token_embd.weight": ("model.embed_tokens.weight", "none"),
    "output_norm.weight": ("model.norm.weight", "none"),
    "output_norm.bias": ("model.norm.bias", "none"),
    "output.weight": ("lm_head.weight", "none"),
}


def both(gguf: str, canonical: str, change: Change = "none") -> Names:
    """Weight and bias of a part of a layer. A tensor that a family has not is refused later."""
    return {f"{gguf}.{end}": (f"{LAYER}{canonical}.{end}", change) for end in ("weight", "bias")}


def attention_names(is_paired: bool) -> Names:
    """`is_paired`: llama.cpp rotates neighbours here, for which the converter reorders rows."""
    q: Change = "rotary_q" if is_paired else "none"
    k: Change = "rotary_k" if is_paired else "none"
    return {
        **both("attn_norm", "input_layernorm"),
        **both("attn_q", "self_attn.q_proj", q),
        **both("attn_k", "self_attn.k_proj", k),
        **both("attn_v", "self_attn.v_proj"),
        **both("attn_output", "self_attn.o_proj"),
    }


MLP_NAMES: Names = {
    **both("ffn_norm", "post_attention_layernorm"),
    **both("ffn_gate", "mlp.gate_proj"),
    **both("ffn_up", "mlp.up_proj"),
    **both("ffn_down", "mlp.down_proj"),
}
QK_NORM_NAMES: Names = {
    **both("attn_q_norm", "self_attn.q_norm"),
    **both("attn_k_norm", "self_attn.k_norm"),
}


def gguf_names(*blocks: Names, whole: Names = WHOLE) -> Callable[[ModelConfig], GgufNames]:
    """Later tables win."""
    merged = {name: place for block in blocks for name, place in block.items()}
    return always(GgufNames(whole, merged))


def decoder_family(
    name: str,
    hf_class: str,
    config: Callable[[Fields], ModelConfig],
    shapes: Callable[[ModelConfig], Shapes],
    gguf: Gguf,
) -> Family:
    """A family whose tensors are named as Llama's. `hf_class`: "Llama" of LlamaForCausalLM."""
    return Family(
        name=name,
        model_types=(name,),
        architectures=(f"{hf_class}ForCausalLM", f"{hf_class}Model"),
        prefix="model.",
        embedding="model.embed_tokens.weight",
        config=config,
        shapes=shapes,
        gguf=gguf,
        ignored=(".rotary_emb.inv_freq",),  # a buffer that old versions saved
    )
