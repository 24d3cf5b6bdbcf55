"""
The door between weights/ and model/: what every checkpoint becomes, whatever it was on disk.

Nothing behind this door can tell safetensors from GGUF. It knows no arithmetic and no HTTP.

* CheckpointError            the file or folder cannot be served; the message is one readable line
  - UntiedCheckpoint         its output matrix is not its embedding
  - UnsupportedCheckpoint    a family, a setting or a tensor type that this code would get wrong
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tokenizers import Tokenizer
from torch import Tensor

from weights.quant import QuantTensor

# "unrotated": sees everything, in a model whose other layers have rotary positions
LayerType = Literal["full", "sliding", "unrotated"]
Rounded = Literal["int8", "int4"]  # a precision of `tiedlm quantize`
BlockOrder = Literal["pre_norm", "post_norm", "parallel"]


class CheckpointError(Exception):
    """One readable line: what is wrong, where, and the value that shows it."""


class UnsupportedCheckpoint(CheckpointError):
    pass


class UntiedCheckpoint(CheckpointError):
    pass


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary positions: inverse frequency i is theta**(-2i / dim) / factors[i]."""

    theta: float
    dim: int  # rotated width of a head
    factors: tuple[float, ...] | None = (
        None  # dim/2 divisors; None: all 1. GGUF stores exactly these
    )
    scale: float = 1.0  # of cosines and sines
    long_factors: tuple[float, ...] | None = None  # instead of factors, in long contexts


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Hugging Face's words. Whatever the family's own file calls them."""

    family: str  # a key of model.families.FAMILIES
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_position_embeddings: int
    norm_eps: float
    activation: Literal["silu", "gelu", "gelu_tanh", "relu"]
    attention_scale: float  # multiplies q.k
    layer_types: tuple[LayerType, ...]  # one a layer
    sliding_window: int | None = None  # keys a "sliding" layer's query sees, itself included
    ropes: Mapping[LayerType, Rope] = field(default_factory=dict)  # empty: none are rotated
    long_context: int | None = None  # max_position_embeddings, were ropes' long_factors used
    alibi_max_bias: float | None = None  # heads' slopes are 2 to (-this * i / num_heads)
    is_alibi_coarse: bool = False  # rounded to bfloat16 position by position: see model/alibi.py
    block_order: BlockOrder = "pre_norm"
    num_parallel_norms: int = 1  # of a "parallel" block
    embedding_size: int | None = None  # of a tied matrix narrower than hidden_size
    embedding_scale: float = 1.0  # multiplies a looked-up row, never the projection
    residual_scale: float = 1.0  # multiplies a branch before it is added
    attention_cap: float | None = None  # scores become cap * tanh(score / cap)
    logit_scale: float = 1.0
    logit_cap: float | None = None
    qkv_limit: float | None = None  # queries, keys and values are cut to it
    has_qk_norm: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """Ids and texts of the tokens that are not text. None where the model has no such token."""

    bos_id: int | None
    eos_id: int | None
    pad_id: int | None
    unk_id: int | None
    stop_ids: tuple[
        int, ...
    ]  # every id that ends a generation: eos, and generation_config's others
    adds_bos: bool  # the tokenizer puts BOS first when asked to add special tokens


@dataclass(frozen=True, slots=True)
class Tie:
    """How one matrix came to serve both ends."""

    embedding: str  # the tensor's canonical name
    reason: Literal["absent", "equal"]  # no output matrix in the file, or one equal bit for bit
    num_bytes_stored: int  # as stored on disk


@dataclass(frozen=True, slots=True)
class Checkpoint:
    name: str  # what the model is called unless --model-name says otherwise
    config: ModelConfig
    tensors: Mapping[
        str, Tensor
    ]  # read and dequantised one at a time, at each access: take each once
    packed: Mapping[str, QuantTensor]  # the same again of matrices stored in blocks, as stored
    stored_types: Mapping[str, int]  # tensor type as on disk ("BF16", "Q4_1", ...) -> how many
    tokenizer: Tokenizer
    special: SpecialTokens
    chat_template: str | None
    tie: Tie
    files: tuple[Path, ...]
    sha256: str  # of the one file; of the lines "digest  name" where there are several
    words: Mapping[str, Any]  # `config` as config.json words it
    precision: Rounded | None = None  # of a file by `tiedlm quantize`: what it was asked for
