"""
The engine on real tensors, small ones: whatever the batch, the cache and the pressure, a request's
tokens are those it gets alone, and so is what is reported of them, to the last bit.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field, replace

import pytest

from model.generate import generate
from model.kv_pool import KVPool
from model.runner import Runner, build_transformer
from model.step import Ask, Sampling, Score
from server.engine.job import Job
from server.engine.live import Live
from server.engine.pages import PagePool
from server.engine.request import Request, Update
from server.engine.scheduler import Scheduler
from server.engine.worker import Worker
from server.metrics import Metrics
from tests.weights.tiny import tiny_hf
from weights.load import load

GREEDY = Sampling(temperature=0.0)
NUM_TOKENS = 20


@dataclass
class Told:
    """Of one request."""

    tokens: list[int] = field(default_factory=list)
    drawn: list[Score] = field(default_factory=list)  # each with its alternatives
    scored: list[Score] = field(default_factory=list)
    alternatives: list[Score] = field(default_factory=list)  # to the scored
    reason: str = ""

    def take(self, update: Update) -> None:
        for each in update.drawn:
            self.tokens.append(each.token)
            if each.report is not None:
                self.drawn += [each.score, *each.report.top]
        self.scored += update.scored
        for report in update.scored_reports:
            self.alternatives += report.top
        self.reason = update.ending.reason if update.ending else ""

    def is_a_beginning_of(self, other: Told) -> bool:
        pairs = (
            (self.drawn, other.drawn),
            (self.scored, other.scored),
            (self.alternatives, other.alternatives),
        )
        return all(mine == whole[: len(mine)] for mine, whole in pairs)


class Bench:
    """A worker over a pool of its own; nothing is shared between two of them but the weights."""

    def __init__(self, checkpoint, transformer, num_pages=256, **limits):
        limits = {"max_batch": 8, "max_batch_tokens": 64} | limits
        runner = Runner(transformer, KVPool(checkpoint.config, num_pages))
        self.pool, self.metrics = PagePool(num_pages, runner.page_size), Metrics()
        self.scheduler = Scheduler(self.pool, **limits)
        self.worker = Worker(runner, self.scheduler, self.metrics, time.monotonic)

    def value(self, name):
        return self.metrics._registry.get_sample_value(f"tiedlm_{name}")

    def run(self, requests, cancel=()) -> list:
        """`cancel` are indices, one a step."""
        jobs = [Job(i, request, self.pool.page_size) for i, request in enumerate(requests)]
        self.worker.add([Live(job, None, job.ticket, 0.0) for job in jobs])
        cancel = list(cancel)
        while self.worker.has_work:
            self.worker.step()
            if cancel:
                self.worker.cancel(cancel.pop(), has_enough=False)
        told = [Told() for _ in requests]
        for live, update in self.worker.take_updates():
            told[live.index].take(update)
        assert self.pool.num_held == 0
        return told


def wishes(prompts) -> list[Request]:
    """Three requests a prompt, each with wishes of its own, in any order."""
    samplings = (GREEDY, Sampling(seed=4), Sampling(temperature=0.7, presence_penalty=1.0))
    requests = [
        Request(
            id=f"{i}-{j}",
            prompt=tuple(prompt),
            max_tokens=NUM_TOKENS - 3 * j - i,
            sampling=sampling,
            ask=Ask(top=3) if j else None,
            prompt_ask=Ask(top=2, summary=True) if j == 2 else None,
        )
        for i, prompt in enumerate(prompts)
        for j, sampling in enumerate(samplings)
    ]
    random.Random(3).shuffle(requests)
    return requests


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """(checkpoint, transformer, prompts)"""
    checkpoint = load(tiny_hf(tmp_path_factory.mktemp("tiny"), "llama"))
    shared = random.Random(7).choices(range(3, 500), k=40)
    prompts = [(*shared[:length], length) for length in (3, 20, 33, 40)]
    return checkpoint, build_transformer(checkpoint), prompts


def test_greedy_output_is_the_naive_loops(model):
    checkpoint, transformer, prompts = model
    requests = [Request(id="r", prompt=each, max_tokens=12, sampling=GREEDY) for each in prompts]
    told = Bench(checkpoint, transformer).run(requests)
    for prompt, each in zip(prompts, told, strict=True):
        assert each.tokens == generate(transformer, list(prompt), 12)


def test_a_crowd_under_pressure_gets_what_each_gets_alone(model):
    checkpoint, transformer, prompts = model
    requests = wishes(prompts)
    # No prompt is long: how much of those runs in a step depends on the clock.
    crowd = Bench(checkpoint, transformer, num_pages=5, max_batch_tokens=48)
    for request, told in zip(requests, crowd.run(requests), strict=True):
        (expected,) = Bench(checkpoint, transformer).run([request])
        assert told.reason == expected.reason == "length"
        assert told.tokens == expected.tokens
        assert told.is_a_beginning_of(expected)
        assert expected.is_a_beginning_of(told)
    assert crowd.scheduler.num_preemptions > 0


def test_cancelling_some_leaves_the_others_as_they_are(model):
    checkpoint, transformer, prompts = model
    requests = wishes(prompts)
    bench = Bench(checkpoint, transformer)
    whole = bench.run(requests)
    again = bench.run(requests, cancel=range(0, len(requests), 3))  # and on a warm cache
    assert [told.reason for told in again].count("cancelled") == 4
    for told, before in zip(again, whole, strict=True):
        assert told.is_a_beginning_of(before)
        assert told.reason == "cancelled" or told.tokens == before.tokens


def test_guesses_change_no_token_and_no_score(model):
    """Alone, in pairs, and under pressure; greedy ends in loops, a low temperature nearly so."""
    checkpoint, transformer, prompts = model
    samplings = (GREEDY, Sampling(temperature=0.05, seed=5), Sampling(temperature=0.05, top_p=0.9))
    asks = (Ask(top=3), None, Ask(top=2, is_processed=True))
    requests = [
        Request(
            id=f"{i}",
            prompt=tuple(prompts[i % 4][:12]) * 3,
            max_tokens=90,
            sampling=samplings[i % 3],
            ask=asks[i // 3],
            stop_ids=frozenset({7}),
        )
        for i in range(9)
    ]
    for size, num_pages in ((1, 256), (2, 10), (3, 18)):
        for first in range(0, 9, size):
            some = requests[first : first + size]
            guessing = Bench(checkpoint, transformer, num_pages)
            told = guessing.run(some)
            assert told == Bench(checkpoint, transformer, num_pages, speculates=False).run(some)
            assert told == guessing.run(some)  # behind the pages that it left in the cache
        assert guessing.value("draft_tokens_accepted_total") > 0
        proposed = guessing.value("draft_tokens_proposed_total")
        assert proposed > guessing.value("draft_tokens_accepted_total") or size == 1


def test_guesses_beside_a_long_prompt_change_no_token_and_no_score(model, monkeypatch):
    checkpoint, transformer, prompts = model
    long = Request(id="long", prompt=prompts[3] * 5, max_tokens=3, prompt_ask=Ask(top=2))
    streams = [
        Request(id="r", prompt=tuple(each[:6]) * 3, max_tokens=90, sampling=GREEDY, ask=Ask(top=3))
        for each in prompts[2:]
    ]
    requests = [*streams, long]
    expected = [
        Bench(checkpoint, transformer, speculates=False).run([request])[0] for request in requests
    ]
    bench, num_mixed = Bench(checkpoint, transformer, max_batch_tokens=40), 0
    run = bench.worker._runner.step

    def step(rows):
        nonlocal num_mixed
        has_drafts = any(row.num_drafts for row in rows)
        num_mixed += has_drafts and any(row.prompt is long.prompt for row in rows)
        return run(rows)

    monkeypatch.setattr(bench.worker._runner, "step", step)
    monkeypatch.setattr(bench.worker._pace, "max_long_tokens", lambda *_: 5)
    assert bench.run(requests) == expected
    assert num_mixed > 10


def test_a_prompt_that_ends_with_a_cached_page_is_answered_as_one_that_is_run(model):
    """Every wish, n of each and at once, before and after; and again under pressure."""
    checkpoint, transformer, prompts = model
    ends = [(*prompts[3], *prompts[1])[:length] for length in (16, 48)]
    requests = [replace(each, id=f"{each.id}-{n}") for each in wishes(ends) for n in range(2)]
    expected = [Bench(checkpoint, transformer).run([each])[0] for each in requests]
    for num_pages, limits in ((256, {}), (7, {"max_batch_tokens": 24}), (7, {"max_batch": 3})):
        bench = Bench(checkpoint, transformer, num_pages, **limits)
        for _ in range(3):
            assert bench.run(requests) == expected
        assert bench.value("prefix_cache_hits_total") > 0
        assert num_pages == 256 or bench.scheduler.num_preemptions > 0
