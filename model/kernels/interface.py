"""
What the model needs of its kernels. reference.py says what each means, native.py is fast.

N tokens, C inputs, O outputs, H query heads, K key-value heads, D head width, P pages, R
distributions, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor

from model.attention import Scoring

Gate = Literal["silu", "gelu", "gelu_tanh", "relu"]


@dataclass(frozen=True, slots=True)
class Spans:
    """
    Which of a batch's N tokens are whose, and where their sequences' pages are.

    Two rows, of 3 tokens from position 16 on and of 1 from position 0 on, with pages of 16:
    rows [[0, 16, 3, 0], [3, 0, 1, 2]], pages [7, 2, 5]. The first row's keys are in 7 and 2.
    """

    rows: Tensor  # (B,4) int64: first token, its position, number of tokens, first of `pages`
    pages: Tensor  # (M,) int64, those of each row behind one another


class Kernels(Protocol):
    name: str  # of the instruction set, or "torch"

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """x (N,C) float32, weight (O,C) float32 or bfloat16, bias (O,) -> x @ weight.T (N,O)."""
        ...

    def attend(
        self,
        q: Tensor,
        keys: Tensor,
        values: Tensor,
        spans: Spans,
        scoring: Scoring,
    ) -> Tensor:
        """
        q (N,H,D), keys and values (P,page_size,K,D) -> (N,H,D). A token sees its row's keys up to
        itself, `scoring.window` of them at most.
        """
        ...

    def gate(self, kind: Gate, x: Tensor, up: Tensor | None) -> Tensor:
        """x and up (N,C) -> kind(x) * up, or kind(x). May overwrite x."""
        ...

    def cap(self, limit: float, x: Tensor) -> Tensor:
        """x (N,V) -> limit * tanh(x / limit). May overwrite x."""
        ...

    def log_sum_exp(self, logits: Tensor) -> Tensor:
        """logits (R,V) -> (R,) float64. A logit may be -inf, not all of a row."""
        ...

    def entropy(self, logprobs: Tensor) -> Tensor:
        """logprobs (R,V), none above 0 -> (R,) float64, nats. A probability of 0 adds nothing."""
        ...
