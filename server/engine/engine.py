"""
One thread that turns requests into tokens, and its two doors to the event loop.

Down: an inbox under a lock. Up: one wake-up of the event loop a step, carrying every row's update.
What a step is, the worker knows; who runs in it, the scheduler.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from threading import Condition, Thread

from server.engine.job import Job
from server.engine.live import Live
from server.engine.pages import PagePool
from server.engine.request import Request, Update
from server.engine.scheduler import Scheduler
from server.engine.stream import Stream
from server.engine.worker import Runner, Worker
from server.errors import ContextLengthExceeded, QueueFull, ShuttingDown
from server.metrics import Metrics

__all__ = ["Engine", "Runner", "Stats", "Stream"]


@dataclass(frozen=True, slots=True)
class Stats:
    num_running: int
    num_waiting: int  # accepted, not running: new, preempted, or waiting for a shared prefix
    kv_usage: float  # 0..1, of pages that running requests hold
    kv_tokens: int  # that the whole pool holds
    num_preemptions: int


class Engine:
    def __init__(
        self,
        runner: Runner,
        *,
        max_batch: int,
        max_batch_tokens: int,
        max_queue: int,
        speculates: bool = True,
        metrics: Metrics | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`max_queue` may wait beside `max_batch`; a call that comes below it is taken whole."""
        self._clock, self._max_batch, self._max_queue = clock, max_batch, max_queue
        self._pool = PagePool(runner.num_pages, runner.page_size)
        self._scheduler = Scheduler(
            self._pool,
            max_batch=max_batch,
            max_batch_tokens=max_batch_tokens,
            speculates=speculates,
        )
        metrics = metrics or Metrics()
        metrics.watch(
            num_running=lambda: self.stats().num_running,
            num_waiting=lambda: self.stats().num_waiting,
            kv_usage=lambda: self.stats().kv_usage,
        )
        self._worker = Worker(runner, self._scheduler, metrics, clock)  # the thread's alone
        self._thread = Thread(target=self._run, name="engine", daemon=True)
        self._tickets = count()
        self._changed = Condition()  # its lock guards all that follows
        self._arrivals: list[Live] = []
        self._cancels: list[tuple[int, bool]] = []
        self._num_live = 0  # accepted, ending not published
        self._num_calls = 0  # taken, and perhaps with parts to come
        self._is_accepting, self._is_stopping = True, False
        self._waiting_for_idle: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    def start(self) -> None:
        self._thread.start()

    @contextmanager
    def call(self) -> Iterator[None]:
        """
        Around work that is submitted part by part: refused, if at all, as it begins, and waited for
        by `drained` to its end. Raises ShuttingDown or QueueFull.
        """
        with self._changed:
            self._check_accepts()
            self._num_calls += 1
        try:
            yield
        finally:
            with self._changed:
                self._num_calls -= 1
                self._tell_if_idle()

    def submit(self, requests: Sequence[Request], *, is_part: bool = False) -> Stream:
        """
        All or none. Raises ContextLengthExceeded, ShuttingDown or QueueFull; `is_part` of a call
        that was taken is not refused for those that came after it.
        """
        for request in requests:
            self._check_fits(request)
        tickets = [next(self._tickets) for _ in requests]
        stream, now = Stream(tickets, self._cancel), self._clock()
        lives = [
            Live(Job(ticket, request, self._pool.page_size), stream, index, now)
            for index, (ticket, request) in enumerate(zip(tickets, requests, strict=True))
        ]
        with self._changed:
            if self._is_stopping or not is_part:
                self._check_accepts()
            self._arrivals += lives
            self._num_live += len(lives)
            self._changed.notify()
        return stream

    def begin_drain(self) -> None:
        """From now on submit raises ShuttingDown; what was accepted goes on."""
        with self._changed:
            self._is_accepting = False

    async def drained(self) -> None:
        """Returns when no request is left without its ending."""
        is_idle = asyncio.Event()
        with self._changed:
            if not (self._num_live or self._num_calls):
                return
            self._waiting_for_idle.append((asyncio.get_running_loop(), is_idle))
        await is_idle.wait()

    def stop(self) -> None:
        """Ends what is left with ShuttingDown, after the running step, and joins the thread."""
        with self._changed:
            self._is_accepting, self._is_stopping = False, True
            self._changed.notify()
        if self._thread.ident is None:
            self._run()  # never started: what was submitted is owed its ending all the same
        else:
            self._thread.join()

    def stats(self) -> Stats:
        """Of this moment; any thread may ask."""
        num_running = len(self._scheduler.running)
        return Stats(
            num_running=num_running,
            num_waiting=max(0, self._num_live - num_running),
            kv_usage=self._pool.num_held / self._pool.num_pages,
            kv_tokens=self._pool.num_pages * self._pool.page_size,
            num_preemptions=self._scheduler.num_preemptions,
        )

    def _check_fits(self, request: Request) -> None:
        """Alone in the pool it must be able to end: then there is always room for the oldest."""
        num_cached = len(request.prompt) + max(0, request.max_tokens - 1)  # the last is not cached
        limit = self._pool.num_pages * self._pool.page_size
        if num_cached > limit:
            raise ContextLengthExceeded(
                f"The prompt is {len(request.prompt)} tokens and max_tokens is "
                f"{request.max_tokens}; the KV cache holds {limit} tokens."
            )

    def _check_accepts(self) -> None:
        if not self._is_accepting:
            raise ShuttingDown("The server is shutting down.")
        num_waiting = self._num_live - self._max_batch
        if num_waiting >= self._max_queue:
            raise QueueFull(f"{num_waiting} requests wait; the limit is {self._max_queue}.")

    def _cancel(self, ticket: int, has_enough: bool) -> None:
        with self._changed:
            self._cancels.append((ticket, has_enough))
            self._changed.notify()

    def _run(self) -> None:
        """The thread."""
        try:
            while self._take_inbox():
                self._worker.end_late()
                self._publish()  # endings that need no step do not wait for one
                if self._worker.has_work:
                    self._worker.step()
                    self._publish()
        finally:  # should this loop itself have a bug, still nobody is left waiting
            self._take_inbox(is_last=True)
            self._worker.end_all(ShuttingDown("The server stopped before the request was done."))
            self._publish()

    def _take_inbox(self, *, is_last: bool = False) -> bool:
        """Sleeps while there is nothing to do. False: stop."""
        with self._changed:
            self._is_accepting &= not is_last
            while not (self._has_news() or self._worker.has_work or is_last):
                self._changed.wait()
            arrivals, self._arrivals = self._arrivals, []
            cancels, self._cancels = self._cancels, []
            is_stopping = self._is_stopping
        self._worker.add(arrivals)
        for ticket, has_enough in cancels:  # after the arrivals: no cancel precedes its own
            self._worker.cancel(ticket, has_enough=has_enough)
        return not is_stopping

    def _has_news(self) -> bool:
        return bool(self._arrivals or self._cancels or self._is_stopping)

    def _publish(self) -> None:
        updates = self._worker.take_updates()
        if not updates:
            return
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Live, Update]]] = defaultdict(list)
        for live, update in updates:
            by_loop[live.stream.loop].append((live, update))
        with self._changed:  # one act: who sees an ending, or waits for idleness, sees this count
            self._num_live -= sum(update.ending is not None for _, update in updates)
            for loop, batch in by_loop.items():
                _call(loop, _deliver, batch)
            self._tell_if_idle()

    def _tell_if_idle(self) -> None:
        """Under the lock."""
        if not (self._num_live or self._num_calls):
            for loop, is_idle in self._waiting_for_idle:
                _call(loop, is_idle.set)
            self._waiting_for_idle = []


def _deliver(batch: Sequence[tuple[Live, Update]]) -> None:
    for live, update in batch:
        live.stream.receive(live.index, update)


def _call(loop: asyncio.AbstractEventLoop, act: Callable[..., None], *args: object) -> None:
    with suppress(RuntimeError):  # a closed loop has nobody left to tell
        loop.call_soon_threadsafe(act, *args)
