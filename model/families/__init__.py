"""Every family that can be served: its name in ModelConfig.family -> how to put it together."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from model.assemble import Parts
from model.families import gemma3, gpt2, llama
from model.transformer import Transformer
from weights.checkpoint import ModelConfig

FAMILIES: Mapping[str, Callable[[ModelConfig, Parts], Transformer]] = {
    "gemma3": gemma3.build,
    "gpt2": gpt2.build,
    "llama": llama.build,
}
