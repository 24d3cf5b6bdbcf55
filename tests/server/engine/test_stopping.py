"""Drain, stop, and what is left when something is broken."""

from __future__ import annotations

import asyncio

import pytest

from server.engine.engine import Engine
from server.errors import ShuttingDown
from tests.fakes import PageModel, alone
from tests.server.engine.threaded import (
    PATIENCE,
    Gate,
    answer,
    gather,
    is_empty,
    outputs,
    request,
    running,
)


def test_draining_refuses_new_calls_and_ends_the_old_ones_normally():
    async def drain(engine, gate):
        task = asyncio.create_task(answer(engine, request(max_tokens=9), request(2)))
        await asyncio.sleep(0)
        gate.let(1)
        engine.begin_drain()
        with pytest.raises(ShuttingDown):
            engine.submit([request()])
        drained = asyncio.create_task(engine.drained())
        await asyncio.sleep(0)
        assert not drained.done()
        gate.open()
        async with asyncio.timeout(PATIENCE):
            await drained
        await engine.drained()  # at once
        return await task

    gate = Gate()
    with running(PageModel(before_step=gate)) as engine:
        answers = asyncio.run(drain(engine, gate))
        assert [ending.reason for _, ending in answers.values()] == ["length", "length"]


def test_stopping_ends_what_is_left_with_an_error_and_joins_the_thread():
    async def stop(engine, gate):
        task = asyncio.create_task(answer(engine, *(request(i, max_tokens=90) for i in range(4))))
        await asyncio.sleep(0)
        gate.let(1)
        join = engine._thread.join
        engine._thread.join = lambda: (gate.open(), join())  # the step ends once told to stop
        await asyncio.to_thread(engine.stop)
        return await task

    gate = Gate()
    with running(PageModel(num_pages=200, before_step=gate), max_batch=2) as engine:
        answers = asyncio.run(stop(engine, gate))
        assert [len(drawn) for drawn, _ in answers.values()] == [2, 2, 0, 0]
        assert {ending.error.code for _, ending in answers.values()} == {"shutting_down"}
        assert not engine._thread.is_alive()
        assert is_empty(engine)
        with pytest.raises(ShuttingDown):
            asyncio.run(answer(engine, request()))


def test_an_engine_that_never_started_still_owes_an_ending():
    async def stop_unstarted(engine):
        stream = engine.submit([request()])
        engine.stop()
        async with asyncio.timeout(PATIENCE):
            return await gather(stream)

    engine = Engine(PageModel(), max_batch=1, max_batch_tokens=4, max_queue=1)
    ((_, ending),) = asyncio.run(stop_unstarted(engine)).values()
    assert ending.error.code == "shutting_down"


def test_a_bug_in_the_loop_itself_leaves_nobody_waiting(monkeypatch):
    async def submit(engine):
        ((_, ending),) = (await answer(engine, request())).values()
        assert ending.error.code == "shutting_down"
        with pytest.raises(ShuttingDown):
            engine.submit([request()])

    def broken(worker):
        raise AssertionError("our own bug")

    monkeypatch.setattr("server.engine.worker.Worker.end_late", broken)
    monkeypatch.setattr("threading.excepthook", lambda args: None)
    with running() as engine:
        asyncio.run(submit(engine))


def test_a_loop_that_was_closed_does_not_stop_the_engine():
    async def abandon(engine):
        engine.submit([request(max_tokens=30)])

    with running() as engine:
        asyncio.run(abandon(engine))
        assert outputs(asyncio.run(answer(engine, request(4)))) == [alone(request(4)).drawn]
