"""An engine on its own thread under a real event loop, for tests. A gate stands for a step."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager

from server.engine.engine import Engine
from server.engine.request import Request
from tests.fakes import PageModel

PATIENCE = 20  # seconds after which a test that hangs fails


class Gate:
    """Steps wait here until they are let through."""

    def __init__(self) -> None:
        self.is_open = False
        self.num_reached = self.num_let = 0
        self._changed = threading.Condition()

    def __call__(self, rows) -> None:
        with self._changed:
            self.num_reached += 1
            self._changed.notify_all()
            mine = self.num_reached
            assert self._changed.wait_for(lambda: self.is_open or mine <= self.num_let, PATIENCE)

    def let(self, num_steps: int) -> None:
        """Returns once the engine is inside the step after these."""
        with self._changed:
            self.num_let += num_steps
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: self.num_reached > self.num_let, PATIENCE)

    def open(self) -> None:
        with self._changed:
            self.is_open = True
            self._changed.notify_all()


@contextmanager
def running(model: PageModel | None = None, **limits):
    engine = Engine(
        model or PageModel(),
        **{"max_batch": 8, "max_batch_tokens": 64, "max_queue": 100, **limits},
    )
    engine.start()
    try:
        yield engine
    finally:
        engine.stop()


def request(*prompt: int, max_tokens: int = 6, **more) -> Request:
    return Request(id="r", prompt=prompt or (1, 2, 3), max_tokens=max_tokens, **more)


async def gather(stream):
    """{index: (tokens drawn, ending)}; fails where an update follows an ending."""
    tokens: dict[int, list] = {}
    endings: dict[int, object] = {}
    async for index, update in stream:
        assert index not in endings
        tokens.setdefault(index, []).extend(update.drawn)
        if update.ending:
            endings[index] = update.ending
    return {index: (tuple(tokens[index]), ending) for index, ending in endings.items()}


async def answer(engine, *requests):
    async with asyncio.timeout(PATIENCE), engine.submit(requests) as stream:
        return await gather(stream)


def outputs(answers) -> list:
    return [drawn for _, (drawn, _) in sorted(answers.items())]


async def until_idle(engine) -> None:
    async with asyncio.timeout(PATIENCE):
        await engine.drained()


def is_empty(engine) -> bool:
    stats = engine.stats()
    return (stats.num_running, stats.num_waiting, stats.kv_usage) == (0, 0, 0.0)
