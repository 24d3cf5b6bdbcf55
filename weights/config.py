"""A config.json-like dict -> its Family and ModelConfig. GGUF metadata comes in the same words."""

from __future__ import annotations

from weights.checkpoint import ModelConfig, UnsupportedCheckpoint, UntiedCheckpoint
from weights.families import FAMILIES
from weights.families.family import Family
from weights.fields import Fields, shown

# Refused by name, with the reason: their files would look like a missing piece of another family.
UNTIED = ("codegen", "gptj", "gpt_neox", "gptneox", "phi", "phi2")
HYBRID = (
    *("bamba", "falcon_h1", "falcon-h1", "falcon_mamba", "granitemoehybrid", "jamba", "lfm2"),
    *("lfm2_moe", "lfm2moe", "mamba", "mamba2", "nemotron_h", "plamo2", "qwen3_next"),
    *("qwen3next", "recurrent_gemma", "rwkv", "rwkv6", "rwkv7", "zamba", "zamba2"),
)


def read_config(fields: Fields) -> tuple[Family, ModelConfig]:
    """CheckpointError: a value that cannot be. UnsupportedCheckpoint: one we would get wrong."""
    refuse_by_name(fields, "model_type")
    family = _family(fields)
    _check_architecture(fields, family)
    fields.must_be("quantization_config")
    fields.must_be("is_encoder_decoder", False)
    _refuse_own_code(fields)
    return family, family.config(fields)


def refuse_by_name(fields: Fields, field: str) -> None:
    name = fields.raw.get(field)
    if not isinstance(name, str):
        return  # refused by whoever reads it
    if name in UNTIED:
        raise UntiedCheckpoint(
            f"{fields.source}: {field} is {name!r}, a family with an output matrix of its own;"
            " this server runs tied models only."
        )
    if name in HYBRID:
        raise UnsupportedCheckpoint(
            f"{fields.source}: {field} is {name!r}, whose layers are not all attention; this server"
            " runs attention alone."
        )


def _family(fields: Fields) -> Family:
    by_type = {kind: family for family in FAMILIES for kind in family.model_types}
    return fields.choice("model_type", by_type)


def _check_architecture(fields: Fields, family: Family) -> None:
    """A classifier of the same model_type has no output matrix either, and would pass for tied."""
    named = fields.raw.get("architectures")
    if named is None:
        return
    if not isinstance(named, list) or not any(name in family.architectures for name in named):
        known = ", ".join(family.architectures)
        raise UnsupportedCheckpoint(
            f"{fields.source}: architectures is {shown(named)}; for {family.name} this server"
            f" knows {known}."
        )


def _refuse_own_code(fields: Fields) -> None:
    own = fields.nested("auto_map")
    if own is not None and any(name.startswith("AutoModel") for name in own.raw):
        raise UnsupportedCheckpoint(
            f"{fields.source}: auto_map names Python code of its own, which is never run."
        )
