"""Every family that can be served: its name in ModelConfig.family -> how to put it together."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from model.assemble import Parts
from model.families import (
    bloom,
    cohere,
    falcon,
    gemma,
    gpt2,
    gpt_neo,
    llama,
    mpt,
    olmo,
    opt,
    phi3,
    stablelm,
    starcoder2,
)
from model.transformer import Transformer
from weights.checkpoint import ModelConfig

FAMILIES: Mapping[str, Callable[[ModelConfig, Parts], Transformer]] = {
    "bloom": bloom.build,
    "cohere": cohere.build,
    "cohere2": cohere.build,
    "falcon": falcon.build,
    "gemma": gemma.build,
    "gemma2": gemma.build,
    "gemma3": gemma.build,
    "gpt": gpt2.build_first,
    "gpt2": gpt2.build,
    "gpt_neo": gpt_neo.build,
    "granite": llama.build,
    "llama": llama.build,
    "mpt": mpt.build,
    "olmo": olmo.build,
    "olmo2": olmo.build_second,
    "opt": opt.build,
    "phi3": phi3.build,
    "qwen2": llama.build,
    "qwen3": llama.build,
    "smollm3": llama.build,
    "stablelm": stablelm.build,
    "starcoder2": starcoder2.build,
}
