"""
The engine thread's own half: requests in, steps of the model, updates out. No lock, no thread, no
event loop.

The order of a request's updates is the order of its tokens, and exactly one of them, the last, has
an ending.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from math import inf
from typing import Literal, Protocol

from model.step import Row, Sampled
from server.engine.live import Live
from server.engine.pace import Chunk, Pace
from server.engine.progress import Progress
from server.engine.request import Ending, Update
from server.engine.scheduler import Scheduler
from server.errors import RequestTimeout, ServeError
from server.metrics import Metrics

log = logging.getLogger(__name__)

Reason = Literal["stop", "length", "cancelled", "failed"]


class Runner(Protocol):
    """What the engine needs of model/. tests/fakes.py has one in pure Python."""

    @property
    def page_size(self) -> int: ...
    @property
    def num_pages(self) -> int: ...
    def step(self, rows: Sequence[Row]) -> list[Sampled]:
        """One answer a row, in order. A row's lists are the engine's own, valid for the step."""
        ...


class Worker:
    def __init__(
        self, runner: Runner, scheduler: Scheduler, metrics: Metrics, clock: Callable[[], float]
    ) -> None:
        self._runner, self._scheduler = runner, scheduler
        self._metrics, self._clock = metrics, clock
        self._pace = Pace()
        self._live: dict[int, Live] = {}
        self._next_deadline = inf  # no live one is earlier
        self._updates: list[tuple[Live, Update]] = []

    @property
    def has_work(self) -> bool:
        return bool(self._live)

    def take_updates(self) -> list[tuple[Live, Update]]:
        """What happened since this was last called, in order."""
        updates, self._updates = self._updates, []
        return updates

    def add(self, arrivals: Iterable[Live]) -> None:
        for live in arrivals:
            self._live[live.job.ticket] = live
            self._next_deadline = min(self._next_deadline, live.deadline)
            self._scheduler.add(live.job)

    def cancel(self, ticket: int, *, has_enough: bool) -> None:
        """`has_enough`: a stop string made its answer whole. No-op where it ended already."""
        if live := self._live.get(ticket):
            self._scheduler.remove(live.job)
            self._metrics.ended("stop" if has_enough else "cancelled", self._age(live))
            self._tell(live, Update(ending=self._ending(live, "cancelled")))

    def end_late(self) -> None:
        """Requests past their deadline, in whatever phase."""
        now = self._clock()
        if now < self._next_deadline:
            return
        for live in [live for live in self._live.values() if live.deadline <= now]:
            timeout = live.job.request.timeout
            self._fail(live, RequestTimeout(f"Not finished within the limit of {timeout:g} s."))
        self._next_deadline = min((live.deadline for live in self._live.values()), default=inf)

    def end_all(self, error: ServeError) -> None:
        for live in list(self._live.values()):
            self._fail(live, error)

    def step(self) -> None:
        """One forward pass over the batch, and what it brought to each of its requests."""
        began, num_preemptions = self._clock(), self._scheduler.num_preemptions
        try:
            rows = self._scheduler.schedule(self._pace.max_long_tokens)
            self._metrics.preempted(self._scheduler.num_preemptions - num_preemptions)
            self._note_started(began)
            progress = self._scheduler.commit(self._runner.step(rows))
        except Exception:  # noqa: BLE001  a bad step must answer its clients, never kill the loop
            self._fail_step()
            return
        now = self._clock()
        self._observe(rows, progress, now - began)
        for told in progress:
            self._record(told, now)

    def _observe(self, rows: Sequence[Row], progress: Sequence[Progress], seconds: float) -> None:
        running = [row for row in rows if row.tokens]  # the others' states were in the cache
        chunks = [Chunk(len(row.tokens), row.start) for row in running if not _decodes(row)]
        num_drafts = sum(row.num_drafts for row in rows)
        self._pace.observe(len(running) - len(chunks), num_drafts, chunks, seconds)
        if num_drafts:
            num_right = sum(max(0, len(told.drawn) - 1) for told in progress)
            self._metrics.drafted(num_drafts, num_right)

    def _note_started(self, now: float) -> None:
        for job in self._scheduler.started:
            live = self._live[job.ticket]
            live.started = now
            self._metrics.started(
                now - live.submitted, len(job.request.prompt), job.num_reused or 0
            )

    def _fail_step(self) -> None:
        failed = [self._live[job.ticket] for job in self._scheduler.fail()]
        log.exception(
            "step failed; its requests: %s", " ".join(live.job.request.id for live in failed)
        )
        for live in failed:
            self._fail(live, ServeError("The model failed on this request; others are served on."))

    def _record(self, told: Progress, now: float) -> None:
        live = self._live[told.job.ticket]
        bound = told.job.request.constraint
        if bound is not None and bound.failure is not None:
            self._fail(live, bound.failure)
            return
        if told.drawn:
            self._note_drawn(live, len(told.drawn), now)
        if told.reason:
            self._note_prompt_done(live, now)
            self._metrics.ended(told.reason, now - live.submitted)
        elif not (told.drawn or told.scored):
            return
        for each in told.drawn[:-1]:  # a token an update, as if each had had a step of its own
            self._tell(live, Update(drawn=(each,)))
        self._tell(
            live,
            Update(
                drawn=told.drawn[-1:],
                report=told.report,
                scored=told.scored,
                scored_reports=told.scored_reports,
                ending=self._ending(live, told.reason, stop_id=told.stop_id)
                if told.reason
                else None,
            ),
        )

    def _note_drawn(self, live: Live, count: int, now: float) -> None:
        if live.prompt_done is None:
            self._note_prompt_done(live, now)
            self._metrics.first_token(now - live.submitted)
        else:
            self._metrics.next_tokens(count, now - live.newest)
        live.newest = now

    def _note_prompt_done(self, live: Live, now: float) -> None:
        if live.prompt_done is None:
            live.prompt_done = now
            request = live.job.request
            self._metrics.prompt_done(len(request.prompt) - (request.first_scored - 1))

    def _fail(self, live: Live, error: ServeError) -> None:
        self._scheduler.remove(live.job)
        self._metrics.ended("failed", self._age(live))
        self._tell(live, Update(ending=self._ending(live, "failed", error=error)))

    def _age(self, live: Live) -> float:
        return self._clock() - live.submitted

    def _ending(
        self,
        live: Live,
        reason: Reason,
        stop_id: int | None = None,
        error: ServeError | None = None,
    ) -> Ending:
        timings = live.timings(self._clock())
        return Ending(reason, timings, live.job.num_reused or 0, stop_id, error)

    def _tell(self, live: Live, update: Update) -> None:
        if update.ending:
            del self._live[live.job.ticket]
            if (bound := live.job.request.constraint) is not None:
                bound.close()
        self._updates.append((live, update))


def _decodes(row: Row) -> bool:
    """A chunk of one token, with more to come, does not draw."""
    return len(row.tokens) - row.num_drafts == 1 and row.sampling is not None
