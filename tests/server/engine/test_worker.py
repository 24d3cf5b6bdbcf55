from __future__ import annotations

import logging

import pytest

from server.errors import RequestTimeout, ServeError, ShuttingDown
from tests.fakes import alone
from tests.server.engine.bench import Bench, ending_of


def test_updates_come_in_the_order_of_tokens_and_the_last_has_the_ending():
    bench = Bench()
    live = bench.add()
    (updates,) = bench.run().values()
    assert ending_of(updates).reason == "length"
    drawn = tuple(each for update in updates for each in update.drawn)
    assert drawn == alone(live.job.request).drawn


def test_timings_are_those_of_the_clock():
    bench = Bench(seconds_a_step=1.0, max_batch=1, max_batch_tokens=4)
    bench.add(prompt=range(8), max_tokens=3)  # two steps of prompt, the second draws; two more
    bench.add(prompt=(9, 9), max_tokens=1)
    bench.now = 0.5
    first, second = map(ending_of, bench.run().values())
    assert (first.timings.queue, first.timings.prefill, first.timings.decode) == (0.5, 2.0, 2.0)
    assert (second.timings.queue, second.timings.prefill, second.timings.decode) == (4.5, 1.0, 0.0)


def test_cached_tokens_are_those_of_the_prompt():
    bench = Bench()
    for expected in (0, 8):
        bench.add(prompt=range(10))
        (updates,) = bench.run().values()
        assert ending_of(updates).cached_tokens == expected


# Failures


def test_a_step_that_raises_answers_its_rows_and_no_others(caplog):
    def fail_once(rows):
        bench.before_step = None
        raise RuntimeError("nan in logits")

    bench = Bench(max_batch=2, before_step=fail_once)
    prompt = (11, 12, 13, 14, 15)
    lives = [bench.add(prompt=(i, *prompt)) for i in range(3)]
    with caplog.at_level(logging.ERROR):
        told = bench.run()
    endings = [ending_of(told[live.job.request.id]) for live in lives]
    assert [ending.reason for ending in endings] == ["failed", "failed", "length"]
    error = endings[0].error
    assert (error.status, error.code) == (500, "internal_error")
    assert "nan" not in error.message
    assert bench.pool.num_held == 0
    (record,) = caplog.records
    assert "request-0 request-1" in record.message
    assert "request-2" not in record.message
    assert not any(str(token) in record.message for token in prompt)


def test_a_failed_step_leaves_nothing_wrong_in_the_cache():
    def fail_the_third(rows):
        if bench.model.num_steps == 2:
            bench.model.num_steps += 1
            for row in rows:  # as if the step had written before it raised
                bench.model.pages[row.pages[-1]][row.start % 4 :] = [-3] * (4 - row.start % 4)
            raise RuntimeError

    bench = Bench(before_step=fail_the_third)
    bench.add(prompt=range(7), max_tokens=8)
    bench.run()
    again = bench.add(prompt=range(7), max_tokens=8)
    (updates,) = bench.run().values()
    drawn = tuple(each for update in updates for each in update.drawn)
    assert drawn == alone(again.job.request).drawn


def test_scheduling_that_raises_ends_everything_rather_than_turning_for_ever(monkeypatch):
    bench = Bench(max_batch=1)
    bench.add()
    bench.add()

    def broken(pages_in_step, job):
        raise AssertionError("our own bug")

    monkeypatch.setattr("server.engine.prefix.PagesInStep.add", broken)
    assert [ending_of(u).reason for u in bench.run().values()] == ["failed", "failed"]


def test_a_runner_that_answers_too_few_rows_fails_the_step():
    bench = Bench()
    bench.model.step = lambda rows: []
    bench.add()
    (updates,) = bench.run().values()
    assert isinstance(ending_of(updates).error, ServeError)


# Deadlines


@pytest.mark.parametrize(("seconds", "num_drawn"), [(0.0, 0), (2.5, 2), (3.0, 2)])
def test_a_deadline_ends_what_is_not_done_in_time(seconds, num_drawn):
    """Steps of 1 s: the first two run the prompt (5 tokens, 4 a step), each draws one from then."""
    bench = Bench(seconds_a_step=1.0, max_batch_tokens=4)
    live = bench.add(timeout=seconds, max_tokens=20)
    (updates,) = bench.run().values()
    ending = ending_of(updates)
    assert ending.reason == "failed"
    assert isinstance(ending.error, RequestTimeout)
    assert (ending.error.status, ending.error.code) == (429, "queue_full")
    assert f"{seconds:g} s" in ending.error.message
    assert sum(len(update.drawn) for update in updates) == num_drawn
    assert bench.pool.num_held == 0
    assert live.job.pages == []


def test_a_deadline_reaches_those_that_wait_too_and_spares_the_others():
    bench = Bench(seconds_a_step=1.0, max_batch=1)
    bench.add(max_tokens=9)
    bench.add(timeout=3.0)
    bench.add(timeout=30.0)
    told = bench.run()
    reasons = {name: ending_of(updates).reason for name, updates in told.items()}
    assert reasons == {"request-0": "length", "request-1": "failed", "request-2": "length"}
    late = ending_of(told["request-1"])
    assert (late.timings.queue, late.timings.prefill, late.timings.decode) == (3.0, 0.0, 0.0)


def test_each_deadline_is_kept_whatever_the_order_they_came_in():
    bench = Bench(seconds_a_step=1.0)
    for i, timeout in enumerate((5.0, 2.0, 30.0, 3.0)):
        bench.add(prompt=(i,), max_tokens=20, timeout=timeout)
    told = bench.run()
    assert [len(told[f"request-{i}"]) - 1 for i in (0, 1, 3)] == [5, 2, 3]  # a token a step
    assert ending_of(told["request-2"]).reason == "length"


def test_end_all_leaves_nobody_without_an_ending():
    bench = Bench(max_batch=1)
    bench.add()
    bench.add()
    bench.worker.step()
    bench.worker.end_all(ShuttingDown("The server is shutting down."))
    told = bench.run()
    assert [ending_of(updates).error.code for updates in told.values()] == 2 * ["shutting_down"]
    assert bench.pool.num_held == 0


# Cancelling and metrics


def test_a_cancelled_request_is_told_once_and_others_go_on():
    bench = Bench()
    lives = [bench.add(prompt=(i, 2, 3), max_tokens=6) for i in range(8)]
    bench.worker.step()
    bench.worker.cancel(2, has_enough=False)
    bench.worker.cancel(2, has_enough=False)
    bench.worker.cancel(99, has_enough=False)
    told = bench.run()
    for i, live in enumerate(lives):
        updates = told[live.job.request.id]
        assert ending_of(updates).reason == ("cancelled" if i == 2 else "length")
        drawn = tuple(each for update in updates for each in update.drawn)
        assert i == 2 or drawn == alone(live.job.request).drawn


def test_metrics_count_what_happened():
    bench = Bench(seconds_a_step=1.0, max_batch_tokens=8)
    for _ in range(2):
        bench.add(prompt=range(10), max_tokens=3)
        bench.run()
    bench.add(max_tokens=9)
    bench.worker.step()
    bench.worker.cancel(2, has_enough=True)
    bench.add(max_tokens=9)
    bench.worker.cancel(3, has_enough=False)
    assert bench.value("prompt_tokens_total") == 25
    assert bench.value("generation_tokens_total") == 7
    assert bench.value("prefix_cache_queries_total") == 25
    assert bench.value("prefix_cache_hits_total") == 8
    assert bench.value("request_success_total", finished_reason="length") == 2
    assert bench.value("request_success_total", finished_reason="stop") == 1
    assert bench.value("request_success_total", finished_reason="cancelled") == 1
    assert bench.value("time_to_first_token_seconds_sum") == 2 + 1 + 1
    assert bench.value("inter_token_latency_seconds_sum") == 4
    assert bench.value("e2e_request_latency_seconds_count") == 3
    assert bench.value("request_queue_time_seconds_count") == 3


def test_preemptions_are_counted():
    bench = Bench(max_batch=4)
    for i in range(4):
        bench.add(prompt=[i] * 30, max_tokens=90)
    bench.run()
    assert bench.value("preemptions_total") > 0


def test_a_cached_prompt_that_runs_nothing_is_neither_a_chunk_nor_decoding(monkeypatch):
    seen = []
    bench = Bench()
    monkeypatch.setattr(bench.worker._pace, "observe", lambda *told: seen.append(told[0:3:2]))
    prompt = range(2 * bench.pool.page_size)
    for _ in range(2):
        bench.add(prompt=prompt, max_tokens=1)
        bench.run()
    (_, whole), nothing = seen
    assert [chunk.num_tokens for chunk in whole] == [len(prompt)]
    assert nothing == (0, [])
