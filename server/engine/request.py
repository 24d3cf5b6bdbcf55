"""
What the api hands to the engine, and what comes back. Token ids only: no text, no HTTP.

An HTTP call with several prompts or n > 1 is several Requests submitted together; they share a
prompt's pages through the prefix cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from model.step import Ask, Drawn, Report, Sampling, Score
from server.errors import ServeError


class Constraint(Protocol):
    """What one sequence may say. server/constrain has it; the engine's thread calls it."""

    failure: ServeError | None  # it could not go on: the request ends with this

    def mask(self, output: Sequence[int]) -> Callable[[], bytes]:
        """Starts computing Row.allowed; what it gives back waits for it, and never raises."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Request:
    """One sequence to run. The api has checked that len(prompt) + max_tokens fits the context."""

    id: str  # unique among those alive
    prompt: tuple[int, ...]  # at least one token
    max_tokens: int  # 0: run the prompt only, for its scores, and what `ask` wants of what follows
    sampling: Sampling = field(default_factory=Sampling)
    ask: Ask | None = None  # of every distribution drawn from
    prompt_ask: Ask | None = None  # not None: score the prompt tokens from `first_scored` on
    # Before it is context, known to the caller: most often run by a request whose prompt it was, up
    # to the token before. That one's last page, not full, is then copied instead of run again.
    first_scored: int = 1
    stop_ids: frozenset[int] = frozenset()  # drawing one, as its last token, ends the request
    min_tokens: int = 0  # until so many are drawn, stop_ids cannot be
    cache_salt: str = ""  # prefix pages are shared between equal salts only
    constraint: Constraint | None = None  # of what is drawn; its own
    timeout: float | None = None  # seconds from submit; then the ending is "failed"


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds."""

    queue: float  # submitted -> first row in a step
    prefill: float  # -> first token drawn (or prompt done)
    decode: float  # -> ending


@dataclass(frozen=True, slots=True)
class Ending:
    reason: Literal["stop", "length", "cancelled", "failed"]
    timings: Timings
    cached_tokens: int  # of the prompt, found in the prefix cache
    stop_id: int | None = None  # with "stop": which of stop_ids
    error: ServeError | None = None  # with "failed"


@dataclass(frozen=True, slots=True)
class Update:
    """What one step did for one request. Exactly one of a request has an ending: its last."""

    drawn: tuple[Drawn, ...] = ()  # tokens in order
    report: Report | None = None  # to `ask`, with max_tokens 0
    scored: tuple[Score, ...] = ()  # of the next prompt tokens, in order, from first_scored on
    scored_reports: tuple[Report, ...] = ()  # beside `scored`, where prompt_ask asks for more
    ending: Ending | None = None


__all__ = [
    "Ask",
    "Drawn",
    "Ending",
    "Report",
    "Request",
    "Sampling",
    "Score",
    "Timings",
    "Update",
]
