"""
One decoder for every family: families/*.py only choose the pieces.

N tokens of all rows lie behind one another; what a token may look at is the memory's business, not
this file's. H query heads, K key-value heads, D head width, C hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from model.embedding import TiedEmbedding
from model.kernels import Kernels
from model.linear import Linear
from model.rope import angles, rotate
from weights.checkpoint import LayerType

Activation = Callable[[Tensor, Tensor | None], Tensor]  # x and up -> f(x) * up, or f(x)
Angles = Mapping[LayerType, tuple[Tensor, Tensor]]  # cosines and sines, (N,1,D/2) each


class Memory(Protocol):
    """Where keys and values live. runner.py has the paged one, generate.py one that forgets."""

    def attend(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None
    ) -> Tensor:
        """Remember k and v (N,K,D), then let q (N,H,D) look at all it may -> (N,H,D)."""
        ...


@dataclass(frozen=True, slots=True)
class RMSNorm:
    weight: Tensor  # (C,) or (D,)
    eps: float

    def __call__(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


@dataclass(frozen=True, slots=True)
class LayerNorm:
    weight: Tensor
    bias: Tensor | None
    eps: float

    def __call__(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


Norm = RMSNorm | LayerNorm


@dataclass(frozen=True, slots=True)
class Attention:
    layer: int
    qkv: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]  # (N,C) -> (N,H*D), (N,K*D), (N,K*D)
    output: Linear
    head_dim: int
    scale: float
    layer_type: LayerType
    window: int | None = None
    q_norm: Norm | None = None  # over each head
    k_norm: Norm | None = None

    def __call__(self, x: Tensor, rope: Angles, memory: Memory) -> Tensor:
        q, k, v = (part.view(len(x), -1, self.head_dim) for part in self.qkv(x))
        q = q if self.q_norm is None else self.q_norm(q)
        k = k if self.k_norm is None else self.k_norm(k)
        if self.layer_type in rope:
            q, k = rotate(q, *rope[self.layer_type]), rotate(k, *rope[self.layer_type])
        return self.output(memory.attend(self.layer, q, k, v, self.scale, self.window).flatten(1))


@dataclass(frozen=True, slots=True)
class SeparateQKV:
    q: Linear
    k: Linear
    v: Linear

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.q(x), self.k(x), self.v(x)


@dataclass(frozen=True, slots=True)
class FusedQKV:
    qkv: Linear
    widths: tuple[int, int, int]

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = torch.split(self.qkv(x), list(self.widths), dim=-1)
        return q, k, v


@dataclass(frozen=True, slots=True)
class GatedMLP:
    activation: Activation
    gate: Linear
    up: Linear
    down: Linear

    def __call__(self, x: Tensor) -> Tensor:
        return self.down(self.activation(self.gate(x), self.up(x)))


@dataclass(frozen=True, slots=True)
class PlainMLP:
    activation: Activation
    up: Linear
    down: Linear

    def __call__(self, x: Tensor) -> Tensor:
        return self.down(self.activation(self.up(x), None))


@dataclass(frozen=True, slots=True)
class Block:
    """Pre-norm; Gemma norms a branch once more before it is added."""

    attention_norm: Norm
    attention: Attention
    mlp_norm: Norm
    mlp: GatedMLP | PlainMLP
    attention_post_norm: Norm | None = None
    mlp_post_norm: Norm | None = None

    def __call__(self, x: Tensor, rope: Angles, memory: Memory) -> Tensor:
        branch = self.attention(self.attention_norm(x), rope, memory)
        x = x + (branch if self.attention_post_norm is None else self.attention_post_norm(branch))
        branch = self.mlp(self.mlp_norm(x))
        return x + (branch if self.mlp_post_norm is None else self.mlp_post_norm(branch))


@dataclass(frozen=True, slots=True)
class Transformer:
    embedding: TiedEmbedding
    blocks: Sequence[Block]
    final_norm: Norm
    frequencies: Mapping[
        LayerType, Tensor
    ]  # rotary, (D/2,) by layer type; empty: learned positions
    kernels: Kernels
    positions: Tensor | None = None  # learned, (max_position_embeddings, C)

    def forward(self, tokens: Tensor, positions: Tensor, memory: Memory) -> Tensor:
        """tokens and positions (N,) -> (N,C), normed and ready for `embedding.logits`."""
        x = self.embedding.lookup(tokens)
        if self.positions is not None:
            x = x + F.embedding(positions, self.positions)
        rope = {kind: angles(positions, freq) for kind, freq in self.frequencies.items()}
        for block in self.blocks:
            x = block(x, rope, memory)
        return self.final_norm(x)

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
