"""The shape of a family's entry, and the pieces several families share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from weights.checkpoint import CheckpointError, LayerType, ModelConfig, UnsupportedCheckpoint
from weights.fields import Fields, shown

Shapes = dict[str, tuple[int, ...]]
Activation = Literal["silu", "gelu", "gelu_tanh", "relu"]

ACTIVATIONS: Mapping[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}
LAYER_TYPES: Mapping[str, LayerType] = {"full_attention": "full", "sliding_attention": "sliding"}

# How a GGUF tensor differs from the canonical one of the same name:
#   "rotary"     its rows pair neighbours (0,1)(2,3) of a head where the canonical pairs halves
# (0,D/2)(1,D/2+1)
#   "transposed" it is (out,in) where the canonical is (in,out), as GPT-2's Conv1D has it
#   "plus_one"   a norm weight w is stored as 1+w
#   "grouped"    its rows are all queries, all keys, all values where the canonical has each
# key-value head's keys and values behind its own queries
Change = Literal["none", "rotary_q", "rotary_k", "transposed", "plus_one", "grouped"]


@dataclass(frozen=True, slots=True)
class GgufNames:
    """GGUF tensor name -> (canonical name, how it is stored). `{}` is the layer's number."""

    whole: Mapping[str, tuple[str, Change]]
    block: Mapping[str, tuple[str, Change]]  # "attn_q.weight" for blk.{}.attn_q.weight


def always(names: GgufNames) -> Callable[[ModelConfig], GgufNames]:
    return lambda _: names


@dataclass(frozen=True, slots=True)
class Gguf:
    architecture: str
    config: Callable[[Fields, Fields], dict[str, Any]]  # (metadata, facts) -> config.json's words
    names: Callable[[ModelConfig], GgufNames]


@dataclass(frozen=True, slots=True)
class Family:
    name: str  # ModelConfig.family
    model_types: tuple[str, ...]  # config.json's model_type
    architectures: tuple[str, ...]  # config.json's, of those that end in the tied matrix
    prefix: str  # of every canonical name but the output matrix's; some files leave it out
    embedding: str
    config: Callable[[Fields], ModelConfig]
    shapes: Callable[[ModelConfig], Shapes]  # every tensor that must be there, but for the output
    gguf: Gguf | None  # None: GGUF has no such architecture
    output: str = "lm_head.weight"
    ignored: tuple[str, ...] = ()  # ends of names of tensors that hold no weights
    is_conv1d: bool = False  # matrices of blocks are (in,out), as GPT-2's Conv1D has them


def full_layers(num_layers: int) -> tuple[LayerType, ...]:
    full: LayerType = "full"
    return (full,) * num_layers


def all_sliding(num_layers: int) -> tuple[LayerType, ...]:
    sliding: LayerType = "sliding"
    return (sliding,) * num_layers


def listed_layers(
    config: Fields, num_layers: int, default: Sequence[LayerType]
) -> tuple[LayerType, ...]:
    """config.json's `layer_types`, or the default where it has none."""
    listed = config.raw.get("layer_types")
    if listed is None:
        return tuple(default)
    if not isinstance(listed, list) or len(listed) != num_layers:
        raise CheckpointError(f"{config.source}: layer_types must list {num_layers} layers.")
    for kind in listed:
        if not isinstance(kind, str) or kind not in LAYER_TYPES:
            raise UnsupportedCheckpoint(f"{config.source}: layer_types has {shown(kind)}.")
    return tuple(LAYER_TYPES[kind] for kind in listed)


def every_nth_full(num_layers: int, every: int) -> tuple[LayerType, ...]:
    return tuple("sliding" if (i + 1) % every else "full" for i in range(num_layers))


def in_layers(pattern: str, num_layers: int, layer: Shapes) -> Shapes:
    """`pattern`: "model.layers.{}."; `layer`: what follows it, the same in each."""
    return {
        pattern.format(i) + name: shape for i in range(num_layers) for name, shape in layer.items()
    }


def with_biases(matrices: Mapping[str, tuple[int, ...]], has_bias: bool = True) -> Shapes:
    """Names without their end -> with ".weight", and ".bias" where there is one."""
    named: Shapes = {f"{name}.weight": shape for name, shape in matrices.items()}
    if has_bias:
        named |= {f"{name}.bias": shape[:1] for name, shape in matrices.items()}
    return named


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
