"""
One decoder for every family: families/*.py only choose the pieces.

N tokens of all rows lie behind one another; what a token may look at is the memory's business, not
this file's. H query heads, K key-value heads, D head width, C hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from model.attention import Scoring
from model.embedding import TiedEmbedding
from model.kernels import Kernels, Pairs
from model.linear import Linear, together
from model.norms import AllHeadsNorm, Norm
from weights.checkpoint import LayerType

Activation = Callable[[Tensor, Tensor | None], Tensor]  # x and up -> f(x) * up, or f(x)
Rotations = Mapping[LayerType, Callable[[Pairs, Tensor], Tensor]]  # of (N,H,D) by position
QKV = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]  # (N,C) -> (N,H*D), (N,K*D), (N,K*D)


class Memory(Protocol):
    """Where keys and values live. runner.py has the paged one, generate.py one that forgets."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scoring: Scoring) -> Tensor:
        """Remember k and v (N,K,D), then let q (N,H,D) look at all it may -> (N,H,D)."""
        ...


@dataclass(frozen=True, slots=True)
class Attention:
    layer: int
    qkv: QKV
    output: Linear | Scaled
    head_dim: int
    scoring: Scoring
    layer_type: LayerType
    q_norm: Norm | AllHeadsNorm | None = None  # of (N,H,D)
    k_norm: Norm | AllHeadsNorm | None = None
    pairs: Pairs = "halves"

    def __call__(self, x: Tensor, rope: Rotations, memory: Memory, onto: Tensor | None) -> Tensor:
        q, k, v = (part.view(len(x), -1, self.head_dim) for part in self.qkv(x))
        q = q if self.q_norm is None else self.q_norm(q)
        k = k if self.k_norm is None else self.k_norm(k)
        if self.layer_type in rope:
            q, k = (rope[self.layer_type](self.pairs, x) for x in (q, k))
        return self.output(memory.attend(self.layer, q, k, v, self.scoring).flatten(1), onto)


@dataclass(frozen=True, slots=True)
class SeparateQKV:
    q: Linear
    k: Linear
    v: Linear

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = together((self.q, self.k, self.v), x)
        return q, k, v


@dataclass(frozen=True, slots=True)
class FusedQKV:
    qkv: Linear
    widths: tuple[int, int, int]

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        of_q, of_k, of_v = self.widths
        columns = partial(self.qkv.kernels.columns, self.qkv(x))
        return columns(0, of_q), columns(of_q, of_k), columns(of_q + of_k, of_v)


@dataclass(frozen=True, slots=True)
class GroupedQKV:
    """
    Each key-value head's rows behind those of its own queries: q q k v, q q k v for four queries of
    two groups.
    """

    qkv: Linear
    num_kv_heads: int
    head_dim: int

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        heads = self.qkv(x)
        K, D, width = self.num_kv_heads, self.head_dim, heads.shape[1] // self.num_kv_heads
        columns = partial(self.qkv.kernels.columns, heads)
        q = columns(0, width - 2 * D, width, K)
        return q, columns(width - 2 * D, D, width, K), columns(width - D, D, width, K)


@dataclass(frozen=True, slots=True)
class ClippedQKV:
    qkv: QKV
    limit: float
    kernels: Kernels

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = (self.kernels.clamp(self.limit, part) for part in self.qkv(x))
        return q, k, v


@dataclass(frozen=True, slots=True)
class Scaled:
    """The last layer of a branch, which is added less than whole."""

    layer: Linear
    by: float

    def __call__(self, x: Tensor, onto: Tensor | None = None) -> Tensor:
        return self.layer.kernels.add(self.layer(x), onto, self.by)


@dataclass(frozen=True, slots=True)
class GatedMLP:
    activation: Activation
    gate: Linear
    up: Linear
    down: Linear | Scaled

    def __call__(self, x: Tensor, onto: Tensor | None = None) -> Tensor:
        gate, up = together((self.gate, self.up), x)
        return self.down(self.activation(gate, up), onto)


@dataclass(frozen=True, slots=True)
class FusedGatedMLP:
    activation: Activation
    gate_up: Linear  # the gate's rows, then up's
    down: Linear

    def __call__(self, x: Tensor, onto: Tensor | None = None) -> Tensor:
        both = self.gate_up(x)
        half, columns = both.shape[1] // 2, self.gate_up.kernels.columns
        gate, up = columns(both, 0, half), columns(both, half, half)
        return self.down(self.activation(gate, up), onto)


@dataclass(frozen=True, slots=True)
class PlainMLP:
    activation: Activation
    up: Linear
    down: Linear

    def __call__(self, x: Tensor, onto: Tensor | None = None) -> Tensor:
        return self.down(self.activation(self.up(x), None), onto)


MLP = GatedMLP | FusedGatedMLP | PlainMLP


@dataclass(frozen=True, slots=True)
class Block:
    """Pre-norm. Gemma norms a branch once more before it is added, OLMo 2 only then."""

    attention_norm: Norm | None
    attention: Attention
    mlp_norm: Norm | None
    mlp: MLP
    attention_post_norm: Norm | None = None
    mlp_post_norm: Norm | None = None

    def __call__(self, x: Tensor, rope: Rotations, memory: Memory) -> Tensor:
        seen = normed(self.attention_norm, x)
        if self.attention_post_norm is None:
            x = self.attention(seen, rope, memory, x)
        else:
            x = self.attention_post_norm(self.attention(seen, rope, memory, None), x)
        seen = normed(self.mlp_norm, x)
        if self.mlp_post_norm is None:
            return self.mlp(seen, x)
        return self.mlp_post_norm(self.mlp(seen), x)


@dataclass(frozen=True, slots=True)
class ParallelBlock:
    """Attention and MLP read the same x (Wang & Komatsuzaki 2021), mostly through one norm."""

    attention_norm: Norm
    attention: Attention
    mlp: MLP
    mlp_norm: Norm | None = None  # None: the same

    def __call__(self, x: Tensor, rope: Rotations, memory: Memory) -> Tensor:
        seen = self.attention_norm(x)
        also_seen = seen if self.mlp_norm is None else self.mlp_norm(x)
        return self.mlp(also_seen, self.attention(seen, rope, memory, x))


@dataclass(frozen=True, slots=True)
class PostNormBlock:
    """The sum is normed, not the branch (Vaswani et al. 2017; Radford et al. 2018)."""

    attention: Attention
    attention_norm: Norm
    mlp: MLP
    mlp_norm: Norm

    def __call__(self, x: Tensor, rope: Rotations, memory: Memory) -> Tensor:
        x = self.attention_norm(self.attention(x, rope, memory, x))
        return self.mlp_norm(self.mlp(x, x))


def normed(norm: Norm | None, x: Tensor) -> Tensor:
    return x if norm is None else norm(x)


@dataclass(frozen=True, slots=True)
class Transformer:
    embedding: TiedEmbedding
    blocks: Sequence[Block | ParallelBlock | PostNormBlock]
    final_norm: Norm | None
    frequencies: Mapping[
        LayerType, Tensor
    ]  # rotary, (D/2,) by layer type; empty: learned positions, or none
    kernels: Kernels
    positions: Tensor | None = None  # learned, (max_position_embeddings, C)
    rope_scale: float = 1.0  # of cosines and sines
    entry: Norm | Linear | None = None  # looked-up rows go through it before anything else
    exit: Linear | None = None  # (N,C) -> as wide as the tied matrix, where that is not C

    def forward(self, tokens: Tensor, positions: Tensor, memory: Memory) -> Tensor:
        """tokens and positions (N,) -> (N,C), normed and ready for `embedding.logits`."""
        return self.run(self.enter(tokens, positions), positions, memory)

    def enter(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """tokens and positions (N,) -> (N,C): what the first block is given."""
        x = self.embedding.lookup(tokens)
        if self.entry is not None:
            x = self.entry(x)
        return x if self.positions is None else x + F.embedding(positions, self.positions)

    def run(self, x: Tensor, positions: Tensor, memory: Memory) -> Tensor:
        """x (N,C) from `enter`, positions (N,) -> (N,C): all blocks, and what ends the last."""
        rope = {
            kind: partial(
                self.kernels.rotate, *self.kernels.angles(positions, each, self.rope_scale)
            )
            for kind, each in self.frequencies.items()
        }
        for block in self.blocks:
            x = block(x, rope, memory)
        x = normed(self.final_norm, x)
        return x if self.exit is None else self.exit(x)

    def storages(self) -> Mapping[int, int]:
        """Address -> bytes of every distinct tensor storage: what the parameters occupy."""
        found: dict[int, int] = {}
        _collect(self, found)
        return found


def _collect(piece: object, found: dict[int, int]) -> None:
    if isinstance(piece, torch.Tensor):
        found[piece.data_ptr()] = piece.numel() * piece.element_size()
    elif isinstance(piece, Mapping):
        for value in piece.values():
            _collect(value, found)
    elif isinstance(piece, Sequence) and not isinstance(piece, str):
        for value in piece:
            _collect(value, found)
    elif hasattr(piece, "__dataclass_fields__"):
        for name in piece.__dataclass_fields__:
            _collect(getattr(piece, name), found)
