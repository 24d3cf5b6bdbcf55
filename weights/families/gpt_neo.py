"""GPT-Neo: learned positions, a window in every other layer, scores that are not scaled."""

from __future__ import annotations

from weights.checkpoint import CheckpointError, LayerType, ModelConfig, UnsupportedCheckpoint
from weights.families.family import (
    ACTIVATIONS,
    Family,
    Shapes,
    head_dim,
    in_layers,
    with_biases,
)
from weights.fields import Fields, shown

KINDS: dict[str, LayerType] = {"global": "full", "local": "sliding"}


def config(fields: Fields) -> ModelConfig:
    hidden_size, num_heads = fields.count("hidden_size"), fields.count("num_heads")
    num_layers = fields.count("num_layers", maximum=4096)
    return ModelConfig(
        family="gpt_neo",
        vocab_size=fields.count("vocab_size"),
        hidden_size=hidden_size,
        intermediate_size=fields.count("intermediate_size", 4 * hidden_size),
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=num_heads,
        head_dim=head_dim(Fields({}, fields.source), hidden_size, num_heads),
        max_position_embeddings=fields.count("max_position_embeddings", 2048),
        norm_eps=fields.positive("layer_norm_epsilon", 1e-5),
        activation=fields.choice("activation_function", ACTIVATIONS, "gelu_new"),
        attention_scale=1.0,
        layer_types=_layers(fields, num_layers),
        sliding_window=fields.count("window_size", 256),
        mlp_bias=True,
    )


def _layers(fields: Fields, num_layers: int) -> tuple[LayerType, ...]:
    """[[["global", "local"], 2]] is global, local, global, local."""
    runs = fields.raw.get("attention_types", [[["global", "local"], 12]])
    try:
        names = [name for kinds, times in runs for _ in range(min(times, 4096)) for name in kinds]
    except (TypeError, ValueError):
        raise fields.error("attention_types", "pairs of kinds and a number") from None
    for name in names:
        if not isinstance(name, str) or name not in KINDS:
            raise UnsupportedCheckpoint(f"{fields.source}: attention_types has {shown(name)}.")
    if len(names) != num_layers:
        raise CheckpointError(
            f"{fields.source}: attention_types makes {len(names)} layers, num_layers {num_layers}."
        )
    return tuple(KINDS[name] for name in names)


def shapes(config: ModelConfig) -> Shapes:
    C, F = config.hidden_size, config.intermediate_size
    at = "attn.attention"
    layer = with_biases({"ln_1": (C,), "ln_2": (C,), f"{at}.out_proj": (C, C)})
    layer |= with_biases({f"{at}.{x}_proj": (C, C) for x in "qkv"}, has_bias=False)
    layer |= with_biases({"mlp.c_fc": (F, C), "mlp.c_proj": (C, F)})
    named: Shapes = {
        "transformer.wte.weight": (config.vocab_size, C),
        "transformer.wpe.weight": (config.max_position_embeddings, C),
    }
    named |= with_biases({"transformer.ln_f": (C,)})
    return named | in_layers("transformer.h.{}.", config.num_layers, layer)


FAMILY = Family(
    name="gpt_neo",
    model_types=("gpt_neo",),
    architectures=("GPTNeoForCausalLM", "GPTNeoModel"),
    prefix="transformer.",
    embedding="transformer.wte.weight",
    config=config,
    shapes=shapes,
    gguf=None,
    # Causal masks, saved as buffers by old versions.
    ignored=(".attention.bias", ".attention.masked_bias"),
)
