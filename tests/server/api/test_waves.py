"""Work that is submitted part by part, on a real engine thread."""

from __future__ import annotations

import asyncio

import pytest

from server.api.trie import build_trie
from server.api.waves import Call, run_waves
from server.errors import QueueFull, RequestTimeout, ServeError, ShuttingDown
from tests.fakes import PageModel, score
from tests.server.engine.threaded import (
    PATIENCE,
    Gate,
    answer,
    is_empty,
    request,
    running,
    until_idle,
)

TEXTS = [(a, b, c) for a in range(4) for b in range(3) for c in range(2)]


def call(**more) -> Call:
    return Call("score", "", **{"timeout": 60.0, "wave_size": 2, **more})


def trie():
    return build_trie((1, 2, 3, 4, 5), TEXTS)


def test_waves_come_to_what_all_at_once_would():
    work = trie()
    with running() as engine:
        asyncio.run(run_waves(engine, call(), [work.root()]))
        assert is_empty(engine)
    context = work.context
    assert work.scores == {
        path: [score(context + path[:i], path[i]) for i in range(3)] for path in TEXTS
    }


def test_no_more_than_a_wave_is_ever_waiting_or_running():
    seen = []
    with running(PageModel(before_step=lambda rows: seen.append(len(rows)))) as engine:
        asyncio.run(run_waves(engine, call(wave_size=3), [trie().root()]))
    assert max(seen) == 3


def test_another_request_is_served_between_the_waves():
    gate = Gate()

    async def both(engine):
        long = asyncio.create_task(run_waves(engine, call(), [trie().root()]))
        await asyncio.to_thread(gate.let, 0)
        short = asyncio.create_task(answer(engine, request(9, 9, max_tokens=1)))
        await asyncio.sleep(0)
        await asyncio.to_thread(gate.let, 2)
        await asyncio.wait_for(short, PATIENCE)
        is_still_running = not long.done()
        gate.open()
        await long
        return is_still_running

    with running(PageModel(before_step=gate)) as engine:
        assert asyncio.run(both(engine))


def test_leaving_frees_everything_and_nothing_more_is_submitted():
    gate = Gate()

    async def leave(engine):
        task = asyncio.create_task(run_waves(engine, call(), [trie().root()]))
        await asyncio.to_thread(gate.let, 1)
        task.cancel()
        gate.open()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until_idle(engine)

    with running(PageModel(before_step=gate)) as engine:
        asyncio.run(leave(engine))
        assert is_empty(engine)


def test_a_call_is_refused_when_it_begins_and_not_in_the_middle():
    gate = Gate()

    async def crowd(engine):
        taken = asyncio.create_task(run_waves(engine, call(), [trie().root()]))
        await asyncio.to_thread(gate.let, 0)
        others = [asyncio.create_task(answer(engine, request(i, max_tokens=3))) for i in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFull):
            await run_waves(engine, call(), [trie().root()])
        gate.open()
        await asyncio.gather(taken, *others)

    with running(PageModel(before_step=gate), max_batch=1, max_queue=3) as engine:
        asyncio.run(crowd(engine))


def test_draining_waits_for_the_waves_to_come():
    gate, work = Gate(), trie()

    async def drain(engine):
        task = asyncio.create_task(run_waves(engine, call(), [work.root()]))
        await asyncio.to_thread(gate.let, 0)
        engine.begin_drain()
        with pytest.raises(ShuttingDown):
            await run_waves(engine, call(), [trie().root()])
        gate.open()
        await until_idle(engine)
        assert all(len(scores) == 3 for scores in work.scores.values())
        await task

    with running(PageModel(before_step=gate)) as engine:
        asyncio.run(drain(engine))


def test_a_call_has_one_deadline():
    with running() as engine:
        late = call(timeout=0.001, began=0.0)
        with pytest.raises(RequestTimeout, match=r"0\.001"):
            asyncio.run(run_waves(engine, late, [trie().root()]))
        assert is_empty(engine)


def test_a_failed_step_is_the_calls_error():
    def fail(rows):
        raise RuntimeError("told to fail")

    with running(PageModel(before_step=fail)) as engine:
        with pytest.raises(ServeError):
            asyncio.run(run_waves(engine, call(), [trie().root()]))
        asyncio.run(until_idle(engine))
