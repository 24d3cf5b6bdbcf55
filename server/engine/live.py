"""A request between submit and ending: whom it answers, and when what happened to it (seconds)."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from server.engine.job import Job
from server.engine.request import Timings
from server.engine.stream import Stream


@dataclass(slots=True)
class Live:
    job: Job
    stream: Stream
    index: int  # in the stream
    submitted: float
    started: float | None = None  # its first row's step began
    prompt_done: float | None = None  # the first token was drawn, or there was none to draw
    newest: float = 0.0  # the last token was drawn

    @property
    def deadline(self) -> float:
        timeout = self.job.request.timeout
        return inf if timeout is None else self.submitted + timeout

    def timings(self, now: float) -> Timings:
        """Phases it never reached last 0."""
        started = now if self.started is None else self.started
        prompt_done = now if self.prompt_done is None else self.prompt_done
        return Timings(started - self.submitted, prompt_done - started, now - prompt_done)
