"""The engine on its own thread, under a real event loop. A gate stands for what a step takes."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import contextmanager

import pytest

from model.step import Sampling
from server.engine.engine import Engine
from server.engine.request import Request
from server.errors import ContextLengthExceeded, QueueFull, ShuttingDown
from tests.fakes import PageModel, alone

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


def test_a_call_with_several_requests_gets_each_ones_answer():
    with running() as engine:
        requests = [request(1, 2, 3, i, sampling=Sampling(seed=i)) for i in range(5)]
        answers = asyncio.run(answer(engine, *requests))
        assert outputs(answers) == [alone(each).drawn for each in requests]
        assert {ending.reason for _, ending in answers.values()} == {"length"}
        assert is_empty(engine)


def test_a_call_without_requests_is_over_at_once():
    with running() as engine:
        assert asyncio.run(answer(engine)) == {}


def test_many_calls_at_once_are_answered_as_if_alone():
    async def storm(engine):
        requests = [request(*range(i % 7 + 1), i, max_tokens=i % 24) for i in range(60)]
        answers = await asyncio.gather(*(answer(engine, each) for each in requests))
        assert [outputs(each) for each in answers] == [[alone(each).drawn] for each in requests]

    with running(PageModel(num_pages=8)) as engine:
        asyncio.run(storm(engine))
        assert engine.stats().num_preemptions > 0
        assert is_empty(engine)


def test_a_step_wakes_the_event_loop_once_with_every_rows_update():
    async def count(engine, model):
        loop = asyncio.get_running_loop()
        wake, num_wakes = loop.call_soon_threadsafe, 0

        def counting(*args):
            nonlocal num_wakes
            num_wakes += 1
            return wake(*args)

        loop.call_soon_threadsafe = counting
        try:
            async with (
                engine.submit([request(1, i) for i in range(3)]) as a,
                engine.submit([request(2, i) for i in range(3)]) as b,
            ):
                assert len(await gather(a)) == len(await gather(b)) == 3
        finally:
            loop.call_soon_threadsafe = wake
        assert num_wakes == model.num_steps

    model = PageModel()
    with running(model) as engine:
        asyncio.run(count(engine, model))


def test_an_idle_engine_costs_no_processor_time_and_wakes_for_a_request():
    with running() as engine:
        asyncio.run(answer(engine, request()))
        before = time.process_time()
        threading.Event().wait(0.3)  # nothing to wait for: that is what is measured
        assert time.process_time() - before < 0.1
        assert len(asyncio.run(answer(engine, request()))) == 1


# Leaving and cancelling


def test_leaving_a_stream_frees_its_places_within_one_step():
    async def leave(engine, gate, num_steps):
        keeps = asyncio.create_task(answer(engine, request(5, 6, 7, max_tokens=30)))
        await asyncio.sleep(0)
        async with engine.submit([request(9, i, max_tokens=40) for i in range(3)]):
            gate.let(num_steps)
        running_before = engine.stats().num_running
        gate.let(1)  # the step that ran when it left, and the engine is in the next one
        assert engine.stats().num_running == 1
        assert engine.stats().num_waiting == 0
        gate.open()
        assert outputs(await keeps) == [alone(request(5, 6, 7, max_tokens=30)).drawn]
        return running_before

    for num_steps, expected in ((1, 2), (2, 2), (10, 2)):
        gate = Gate()
        with running(PageModel(before_step=gate), max_batch=2) as engine:
            assert asyncio.run(leave(engine, gate, num_steps)) == expected
            assert is_empty(engine)


def test_a_request_that_leaves_while_it_waits_never_runs():
    async def leave(engine, gate):
        first = asyncio.create_task(answer(engine, request(max_tokens=4)))
        await asyncio.sleep(0)
        gate.let(1)
        async with engine.submit([request(9, 9, 9)]):
            assert engine.stats().num_waiting == 1
        gate.open()
        await first
        await until_idle(engine)

    gate, seen = Gate(), []
    model = PageModel(before_step=lambda rows: (seen.extend(rows), gate(rows)))
    with running(model, max_batch=1) as engine:
        asyncio.run(leave(engine, gate))
        assert all(row.prompt == (1, 2, 3) for row in seen)


def test_a_caller_that_fails_inside_a_stream_leaves_it():
    async def fail(engine):
        with pytest.raises(KeyError):
            async with engine.submit([request(max_tokens=100)]):
                raise KeyError
        await until_idle(engine)

    with running() as engine:
        asyncio.run(fail(engine))
        assert is_empty(engine)


def test_cancelling_one_of_eight_leaves_the_other_seven_as_they_are():
    requests = [request(i, max_tokens=20) for i in range(8)]

    async def cancel_the_fourth(engine):
        tokens = {i: [] for i in range(8)}
        reasons = {}
        async with asyncio.timeout(PATIENCE), engine.submit(requests) as stream:
            async for index, update in stream:
                tokens[index] += update.drawn
                if index == 3 and len(tokens[3]) == 2:
                    stream.cancel(3)
                    stream.cancel(3)
                if update.ending:
                    reasons[index] = update.ending.reason
                    stream.cancel(index)  # too late: nothing happens
        return tokens, reasons

    model = PageModel(before_step=lambda rows: time.sleep(0.001))  # the engine leaves the loop time
    with running(model) as engine:
        tokens, reasons = asyncio.run(cancel_the_fourth(engine))
        assert reasons == {i: "cancelled" if i == 3 else "length" for i in range(8)}
        for i in range(8):
            whole = alone(requests[i]).drawn
            assert tuple(tokens[i]) == (whole[: len(tokens[3])] if i == 3 else whole)


def test_a_slow_reader_gets_everything_in_order():
    async def read_slowly(engine):
        async with asyncio.timeout(PATIENCE), engine.submit([request(max_tokens=50)]) as stream:
            await until_idle(engine)
            return await gather(stream)

    with running() as engine:
        answers = asyncio.run(read_slowly(engine))
        assert outputs(answers) == [alone(request(max_tokens=50)).drawn]


# Limits


def test_a_full_queue_refuses_a_call_and_takes_none_of_it():
    async def fill(engine, gate):
        tasks = [asyncio.create_task(answer(engine, request(i))) for i in range(5)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFull, match="3 requests wait; the limit is 3"):
            engine.submit([request(), request()])
        assert engine.stats().num_waiting + engine.stats().num_running == 5
        gate.open()
        assert len(await asyncio.gather(*tasks)) == 5
        assert len(await answer(engine, request())) == 1

    gate = Gate()
    with running(PageModel(before_step=gate), max_batch=2, max_queue=3) as engine:
        asyncio.run(fill(engine, gate))


def test_a_call_larger_than_the_queue_is_taken_whole_when_there_is_room():
    with running(max_batch=2, max_queue=0) as engine:
        assert len(asyncio.run(answer(engine, *(request(i) for i in range(9))))) == 9


def test_a_request_that_never_fits_is_refused_and_one_that_just_fits_ends():
    async def submit(engine):
        with pytest.raises(ContextLengthExceeded, match=r"20 tokens.* 14;.* holds 32 tokens"):
            engine.submit([request(), request(*range(20), max_tokens=14)])
        assert is_empty(engine)
        just = request(*range(20), max_tokens=13)
        assert outputs(await answer(engine, just)) == [alone(just).drawn]

    with running(PageModel(num_pages=8)) as engine:
        asyncio.run(submit(engine))


def test_a_step_that_raises_answers_its_rows_and_the_next_request_is_served():
    def fail_once(rows):
        model.before_step = None
        raise MemoryError

    model = PageModel(before_step=fail_once)
    with running(model) as engine:
        ((_, ending),) = asyncio.run(answer(engine, request())).values()
        assert (ending.reason, ending.error.code) == ("failed", "internal_error")
        assert is_empty(engine)
        assert outputs(asyncio.run(answer(engine, request()))) == [alone(request()).drawn]


def test_a_deadline_ends_one_request_of_a_call_within_a_step():
    async def late(engine, gate):
        drawn = []
        two = [request(8, 8, max_tokens=60), request(max_tokens=40, timeout=5.0)]
        async with asyncio.timeout(PATIENCE), engine.submit(two) as stream:
            gate.let(3)
            now[0] = 6.0  # it comes during the fourth step
            gate.let(1)
            async for index, update in stream:
                drawn += update.drawn if index == 1 else ()
                if update.ending:
                    gate.open()
                    break
        return drawn, index, update.ending

    now, gate = [0.0], Gate()
    with running(PageModel(before_step=gate), clock=lambda: now[0]) as engine:
        drawn, index, ending = asyncio.run(late(engine, gate))
        assert (index, ending.reason, ending.error.code) == (1, "failed", "queue_full")
        assert len(drawn) == 4


# Stopping


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
