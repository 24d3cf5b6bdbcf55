"""Granite: Llama with four multipliers, on what is looked up, scores, branches and logits."""

from __future__ import annotations

from typing import Any

from weights.checkpoint import ModelConfig
from weights.families.decoder import (
    common,
    decoder_family,
    gguf_words,
    has_tensor,
)
from weights.families.family import Gguf, full_layers
from weights.families.llama import NAMES, shapes
from weights.fields import Fields
from weights.rope import read_rope


def config(fields: Fields) -> ModelConfig:
    read = common(fields, context=2048)
    return ModelConfig(
        **read | {"attention_scale": fields.positive("attention_multiplier", 1.0)},
        family="granite",
        layer_types=full_layers(read["num_layers"]),
        ropes={"full": read_rope(fields, read["head_dim"])},
        embedding_scale=fields.positive("embedding_multiplier", 1.0),
        residual_scale=fields.positive("residual_multiplier", 1.0),
        logit_scale=1.0 / fields.positive("logits_scaling", 1.0),
        attention_bias=fields.flag("attention_bias", False),
        mlp_bias=fields.flag("mlp_bias", False),
    )


def gguf_config(metadata: Fields, facts: Fields) -> dict[str, Any]:
    words = gguf_words(metadata, facts, "granite")
    return words | {
        "rms_norm_eps": metadata.positive("attention.layer_norm_rms_epsilon"),
        # llama.cpp takes the root of the head's width where the file is silent.
        "attention_multiplier": metadata.positive("attention.scale", words["head_dim"] ** -0.5),
        "embedding_multiplier": metadata.positive("embedding_scale", 1.0),
        "residual_multiplier": metadata.positive("residual_scale", 1.0),
        "logits_scaling": metadata.positive("logit_scale", 1.0),
        "attention_bias": has_tensor(facts, "blk.0.attn_q.bias"),
        "mlp_bias": has_tensor(facts, "blk.0.ffn_up.bias"),
    }


FAMILY = decoder_family("granite", "Granite", config, shapes, Gguf("granite", gguf_config, NAMES))
