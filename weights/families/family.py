"""The shape of a family's entry, and the pieces several families share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from weights.checkpoint import CheckpointError, LayerType, ModelConfig
from weights.fields import Fields

Shapes = dict[str, tuple[int, ...]]
Activation = Literal["silu", "gelu", "gelu_tanh"]

ACTIVATIONS: Mapping[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}

# How a GGUF tensor differs from the canonical one of the same name:
#   "rotary"     its rows pair neighbours (0,1)(2,3) of a head where the canonical pairs halves
# (0,D/2)(1,D/2+1)
#   "transposed" it is (out,in) where the canonical is (in,out), as GPT-2's Conv1D has it
#   "plus_one"   a norm weight w is stored as 1+w
Change = Literal["none", "rotary_q", "rotary_k", "transposed", "plus_one"]


@dataclass(frozen=True, slots=True)
class GgufNames:
    """GGUF tensor name -> (canonical name, how it is stored). `{}` is the layer's number."""

    whole: Mapping[str, tuple[str, Change]]
    block: Mapping[str, tuple[str, Change]]  # "attn_q.weight" for blk.{}.attn_q.weight


@dataclass(frozen=True, slots=True)
class Gguf:
    architecture: str
    config: Callable[[Fields, Fields], dict[str, Any]]  # (metadata, facts) -> config.json's words
    names: GgufNames


@dataclass(frozen=True, slots=True)
class Family:
    name: str  # ModelConfig.family
    model_types: tuple[str, ...]  # config.json's model_type
    architectures: tuple[str, ...]  # config.json's, of those that end in the tied matrix
    prefix: str  # of every canonical name but the output matrix's; some files leave it out
    embedding: str
    config: Callable[[Fields], ModelConfig]
    shapes: Callable[[ModelConfig], Shapes]  # every tensor that must be there, but for the output
    gguf: Gguf
    output: str = "lm_head.weight"
    ignored: tuple[str, ...] = ()  # ends of names of tensors that hold no weights


def full_layers(num_layers: int) -> tuple[LayerType, ...]:
    full: LayerType = "full"
    return (full,) * num_layers


def head_dim(config: Fields, hidden_size: int, num_heads: int) -> int:
    """As written, else hidden_size / num_heads, which must then be whole."""
    if not config.has("head_dim") and hidden_size % num_heads:
        raise CheckpointError(
            f"{config.source}: hidden size {hidden_size} is not a multiple of {num_heads} heads."
        )
    return config.count("head_dim", hidden_size // num_heads, maximum=1 << 16)


def check_groups(config: Fields, num_heads: int, num_kv_heads: int) -> None:
    if num_heads % num_kv_heads:
        raise CheckpointError(
            f"{config.source}: {num_heads} query heads are not a multiple of"
            f" {num_kv_heads} key-value heads."
        )
