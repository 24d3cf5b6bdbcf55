"""
Work of one call that is more than the engine should have at once: a wave runs, and what it finds
may be new work.

At most half of a batch is one call's, so that those who come later need not wait for its end; and
only a wave's tokens exist as requests, however many are to come.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from model.step import Report, Score
from server.engine.engine import Engine
from server.engine.request import Ending, Request, Update
from server.errors import RequestTimeout, ShuttingDown


@dataclass(frozen=True, slots=True)
class Call:
    id: str
    cache_salt: str
    timeout: float  # seconds, of the whole call
    wave_size: int
    began: float = field(default_factory=time.monotonic)

    def left(self) -> float:
        """Seconds. Raises RequestTimeout."""
        seconds = self.began + self.timeout - time.monotonic()
        if seconds <= 0:
            raise RequestTimeout(f"Not finished within the limit of {self.timeout:g} s.")
        return seconds


@dataclass(slots=True)
class Outcome:
    """What came of one request."""

    scored: list[Score] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)  # beside `scored`
    report: Report | None = None  # of the distribution after the prompt
    ending: Ending | None = None

    def take(self, update: Update) -> None:
        self.scored += update.scored
        self.reports += update.scored_reports
        for sampled in update.drawn:
            self.report = sampled.report
        self.report = update.report or self.report
        self.ending = update.ending or self.ending


class Work(Protocol):
    def request(self, request_id: str, call: Call) -> Request: ...

    def take(self, outcome: Outcome) -> Sequence[Work]:
        """-> the work that can be done now."""
        ...


async def run_waves(engine: Engine, call: Call, work: Sequence[Work]) -> None:
    """Leaving it cancels what runs. Raises ServeError."""
    pending = list(reversed(work))  # new work goes first: its pages were used last
    number = 0
    with engine.call():
        while pending:
            wave = [pending.pop() for _ in range(min(call.wave_size, len(pending)))]
            requests = [
                each.request(f"{call.id}-{number + i}", call) for i, each in enumerate(wave)
            ]
            number += len(wave)
            outcomes = await run_wave(engine, requests, is_part=True)
            for each, outcome in zip(reversed(wave), reversed(outcomes), strict=True):
                pending += reversed(each.take(outcome))


async def run_wave(
    engine: Engine, requests: Sequence[Request], *, is_part: bool = False
) -> list[Outcome]:
    outcomes = [Outcome() for _ in requests]
    async with engine.submit(requests, is_part=is_part) as stream:
        async for i, update in stream:
            outcomes[i].take(update)
            ending = update.ending
            if ending is not None and ending.reason not in ("stop", "length"):
                raise ending.error or ShuttingDown("the server stopped before this was finished")
    return outcomes
