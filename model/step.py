"""
The whole conversation between server/ and model/: rows of token ids in, tokens and log-
probabilities out. No tensors here.

A request is a sequence of rows. A row without `sampling` and `ask` only fills the cache: a prompt
chunk with more to come.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is drawn. Applied in the order of the fields; defaults change nothing."""

    allowed_ids: tuple[int, ...] | None = None  # None: every token
    logit_bias: tuple[tuple[int, float], ...] = ()  # (token, added to its logit)
    repetition_penalty: float = 1.0  # over prompt and output (Keskar et al. 2019)
    presence_penalty: float = 0.0  # over output, once a token
    frequency_penalty: float = 0.0  # over output, each time
    temperature: float = 1.0  # 0: greedy, ties to the lowest id
    top_k: int = 0  # 0: no limit
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0  # draw i of a request depends on (seed, i) alone: no neighbour, no order of steps


@dataclass(frozen=True, slots=True)
class Ask:
    """What to say of a next-token distribution, beside drawing from it."""

    top: int = 0  # how many of the most likely tokens, ties to the lowest id
    ids: tuple[int, ...] = ()  # and these tokens
    is_processed: bool = False  # False: softmax of the model's logits. True: after all of Sampling
    summary: bool = False  # entropy and log-sum-exp
    full: bool = False  # every token's log-probability
    members: bytes | None = None  # bit i set: token i is one of those whose mass is asked


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence's share of a step."""

    tokens: Sequence[int]  # not yet in the cache: a prompt chunk, or the token drawn last + drafts;
    # none where full pages hold all there are: the answer is from the last one's hidden state
    start: int  # position of tokens[0], which is also how many tokens the cache already holds
    pages: Sequence[int]  # KV pages for positions [0, start + len(tokens)), in order
    sampling: Sampling | None = None  # draw the token that follows the last of `tokens`
    ask: Ask | None = None  # report on that same distribution
    prompt: Sequence[int] = ()  # for the penalties: the whole prompt,
    output: Sequence[int] = ()  # and what was generated; len(output) is also the index of this draw
    banned: Sequence[
        int
    ] = ()  # may not be drawn now (end tokens before min_tokens); counts as processing
    allowed: bytes | None = None  # bit i set: token i may follow; None: every token may
    pending: Callable[[], bytes] | None = None  # gives `allowed`, computed while the model runs
    targets: Sequence[int] = ()  # score these: what really follows tokens[first_target + i]
    first_target: int = 0  # -1: the token before `tokens`, the last of a page, is the first scored
    targets_ask: Ask | None = None  # `top`, `summary`, `members` of each; needs targets
    # How many of `tokens` are guesses, at their end. A token is drawn after the last that is none,
    # and after each guess that was right. Never with penalties, `banned` or a mask.
    num_drafts: int = 0
    copied_from: int | None = None  # page with the same tokens up to `start`, which is within one:
    # before any row writes, its first start % page_size places are copied to the row's own page


class Score(NamedTuple):
    """One token in one distribution."""

    token: int
    logprob: float  # natural logarithm
    rank: int  # 1: the most likely
    logit: float  # before any processing


@dataclass(frozen=True, slots=True)
class Report:
    """The answer to an Ask. Lists are most likely first; `ids` is in the order asked."""

    top: tuple[Score, ...] = ()
    ids: tuple[Score, ...] = ()
    entropy: float | None = None  # nats
    logsumexp: float | None = None  # of the (processed) logits
    full: bytes | None = None  # (V,) float32 log-probabilities, little-endian
    mass: float | None = None  # natural logarithm of the probability of Ask.members together


@dataclass(frozen=True, slots=True)
class Drawn:
    """A token, and what the row's ask says of the distribution that it was drawn from."""

    token: int
    score: Score | None = None  # where the row had an ask; logprob as `ask.is_processed` says
    report: Report | None = None  # likewise


@dataclass(frozen=True, slots=True)
class Sampled:
    """What one row brought back. Log-probabilities may be -inf; what leaves the server may not."""

    drawn: tuple[
        Drawn, ...
    ] = ()  # none, or one and one more for each draft that was drawn, in turn
    report: Report | None = None  # where the row had an ask and drew nothing
    scored: tuple[Score, ...] = ()  # one a target
    scored_reports: tuple[Report, ...] = ()  # one a target, where the row had a targets_ask
