"""
What the model needs of its kernels. reference.py says what each means, native.py is fast.

N tokens, C inputs, O outputs, H query heads, K key-value heads, D head width, P pages, R
distributions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from torch import Tensor

from model.attention import Scoring
from weights.quant import QuantTensor

Gate = Literal["silu", "gelu", "gelu_tanh", "relu"]
Pairs = Literal["halves", "neighbours"]  # which of a head's R places turn together
InputBits = Literal[8, 16]


class Draw(NamedTuple):
    """How to choose from one distribution; see step.Sampling."""

    temperature: float  # 0: the most likely, ties to the lowest id
    top_k: int  # 0: no limit
    top_p: float
    min_p: float
    uniform: float  # [0, 1): where the draw falls in the cumulative sum, in order of ids


@dataclass(frozen=True, slots=True)
class Spans:
    """
    Which of a batch's N tokens are whose, and where their sequences' pages are.

    Two rows, of 3 tokens from position 16 on and of 1 from position 0 on, with pages of 16:
    rows [[0, 16, 3, 0], [3, 0, 1, 2]], pages [7, 2, 5]. The first row's keys are in 7 and 2.
    """

    rows: Tensor  # (B,4) int64: first token, its position, number of tokens, first of `pages`
    pages: Tensor  # (M,) int64, those of each row behind one another


def logprobs_of(logits: Tensor, sums: Tensor) -> Tensor:
    """
    (..., V) and their log_sum_exp (...,) float64 -> log-softmax in float32, by the one order of
    operations that makes its bits. A gathered part of the logits gives the same part of it.
    """
    high = sums.float()
    return (logits - high[..., None]).sub_((sums - high).float()[..., None])


@dataclass(frozen=True, slots=True)
class Output:
    """The output projection: logits are x @ table.T * scale, then cap * tanh(logits / cap)."""

    table: Tensor | QuantTensor  # (V,C)
    scale: float = 1.0
    cap: float | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What of N distributions. Without `sums` only the first of the top."""

    ids: Tensor | None = None  # (N,K) int64: tokens to tell of
    top: int = 0  # how many of the most likely
    sums: bool = True
    entropies: bool = False


@dataclass(frozen=True, slots=True)
class Projected:
    sums: Tensor | None  # (N,) float64, log_sum_exp
    entropies: Tensor | None  # (N,) float64
    id_logits: Tensor | None  # (N,K)
    ranks: Tensor | None  # (N,K)
    top_ids: Tensor  # (N,top)
    top_logits: Tensor  # (N,top)


class Kernels(Protocol):
    name: str  # of the instruction set, or "torch"

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """x (N,C) float32, weight (O,C) float32 or bfloat16, bias (O,) -> x @ weight.T (N,O)."""
        ...

    def linears(
        self, x: Tensor, layers: Sequence[tuple[Tensor, Tensor | None]]
    ) -> tuple[Tensor, ...]:
        """`linear` by up to three matrices of one dtype, each with its bias, as one job."""
        ...

    def quantised(
        self, x: Tensor, weight: QuantTensor, bias: Tensor | None = None, bits: InputBits = 16
    ) -> Tensor:
        """
        x (N,C) float32, weight (O,C) -> x @ weight.T (N,O), x rounded to integers of so many bits,
        each 32 of a row by a scale of their own.
        """
        ...

    def quantised_linears(
        self,
        x: Tensor,
        layers: Sequence[tuple[QuantTensor, Tensor | None]],
        bits: InputBits = 16,
    ) -> tuple[Tensor, ...]:
        """`quantised` by up to three matrices of one kind as one job: x is rounded once."""
        ...

    def look_up(self, table: QuantTensor, rows: Tensor) -> Tensor:
        """rows (N,) int64 -> those of the table (N,C) float32, to the bit what it stands for."""
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
        q (N,H,D), keys (P,K,D,page_size), values (P,K,page_size,D) -> (N,H,D). A token sees its
        row's keys up to itself, `scoring.window` of them at most.
        """
        ...

    def write(self, keys: Tensor, values: Tensor, slots: Tensor, k: Tensor, v: Tensor) -> None:
        """
        keys (P,K,D,page_size) and values (P,K,page_size,D) at slots (N,) = page * page_size +
        offset become k and v (N,K,D).
        """
        ...

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float, onto: Tensor | None = None) -> Tensor:
        """x (...,W), weight (W,) -> x / sqrt(mean(x^2) + eps) * weight + onto."""
        ...

    def layer_norm(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        eps: float,
        onto: Tensor | None = None,
    ) -> Tensor:
        """
        x (N,W) with weight (W,), or x (N,H,W) with one for each head (H,W); bias (W,) ->
        (x - mean) / sqrt(variance + eps) * weight + bias + onto.
        """
        ...

    def add(self, x: Tensor, onto: Tensor | None, by: float = 1.0) -> Tensor:
        """-> x * by + onto. May overwrite x."""
        ...

    def clamp(self, limit: float, x: Tensor) -> Tensor:
        """-> x, where it leaves [-limit, limit] the nearer end. May overwrite x."""
        ...

    def columns(self, x: Tensor, first: int, width: int, step: int = 0, count: int = 1) -> Tensor:
        """
        x (N,W) -> (N,count*width): columns first + i * step .. + width, i below count.

        Of rows q q k v, q q k v, heads two wide, columns(x, 0, 4, 8, 2) are the queries.
        """
        ...

    def angles(
        self, positions: Tensor, frequencies: Tensor, scale: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """
        positions (N,), frequencies (R/2,), radians a position -> cosines and sines times scale,
        each (N,1,R/2), one for all heads.
        """
        ...

    def rotate(self, cosines: Tensor, sines: Tensor, pairs: Pairs, x: Tensor) -> Tensor:
        """
        cosines and sines (N,1,R/2), x (N,H,D) -> (N,H,D): the first R of D turn, the rest pass. May
        overwrite x.
        """
        ...

    def gate(self, kind: Gate, x: Tensor, up: Tensor | None) -> Tensor:
        """x and up (N,C) -> kind(x) * up, or kind(x). May overwrite x."""
        ...

    def cap(self, limit: float, x: Tensor) -> Tensor:
        """x (N,V) -> limit * tanh(x / limit). May overwrite x."""
        ...

    def is_finite(self, x: Tensor) -> bool:
        """Every element of it."""
        ...

    def log_sum_exp(self, logits: Tensor) -> Tensor:
        """logits (R,V) -> (R,) float64. A logit may be -inf, not all of a row."""
        ...

    def log_softmax(self, logits: Tensor) -> Tensor:
        """logits (R,V) -> (R,V) float32, each the exact value within two roundings."""
        ...

    def entropy(self, logits: Tensor) -> Tensor:
        """(R,V) -> (R,) float64, nats, of their softmax. A probability of 0 adds nothing."""
        ...

    # Below, a row is logits with their log_sum_exp in `sums`, which stand for their log_softmax,
    # bit for bit; or log-probabilities, where `sums` is None. Their order: most likely first, ties
    # of equal float32 log-probability to the lowest id.

    def ranks(
        self, logits: Tensor, rows: Tensor, tokens: Tensor, sums: Tensor | None = None
    ) -> Tensor:
        """(R,V), rows and tokens (M,), (R,) -> (M,), the place of each token in its row, from 1."""
        ...

    def top(self, logits: Tensor, count: int, sums: Tensor | None = None) -> Tensor:
        """(R,V), (R,) -> the first `count` ids of each row (R,count)."""
        ...

    def project(self, hidden: Tensor, output: Output, wanted: Wanted) -> Projected:
        """
        hidden (N,C) -> what log_sum_exp, entropy, ranks and top say of its logits, to the bit; but
        no more than a part of the vocabulary's logits is ever held.
        """
        ...

    def choose(
        self,
        logits: Tensor,
        draws: Sequence[Draw],
        sums: Tensor | None = None,
        has_processed: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """
        logits (R,V) -> ids (R,), and the distributions they are drawn from (R,V) if wanted: the
        log-softmax of what temperature, top-k, top-p and min-p leave, -inf elsewhere. `sums` saves
        work where it is known, and is NaN or None where it is not.
        """
        ...
