"""The engine on its own thread, under a real event loop."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from model.step import Sampling
from server.errors import ContextLengthExceeded, QueueFull
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
    until_idle,
)


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

    async def cancel_the_fourth(engine, gate):
        tokens = {i: [] for i in range(8)}
        reasons = {}
        async with asyncio.timeout(PATIENCE), engine.submit(requests) as stream:
            gate.let(2)
            async for index, update in stream:
                tokens[index] += update.drawn
                if index == 3 and len(tokens[3]) == 2:
                    stream.cancel(3)
                    stream.cancel(3)
                    gate.open()
                if update.ending:
                    reasons[index] = update.ending.reason
                    stream.cancel(index)  # too late: nothing happens
        return tokens, reasons

    gate = Gate()
    with running(PageModel(before_step=gate)) as engine:
        tokens, reasons = asyncio.run(cancel_the_fourth(engine, gate))
        assert reasons == {i: "cancelled" if i == 3 else "length" for i in range(8)}
        assert len(tokens[3]) == 3  # the step that ran meanwhile came too
        for i in range(8):
            assert tuple(tokens[i]) == alone(requests[i]).drawn[: 3 if i == 3 else 20]


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
