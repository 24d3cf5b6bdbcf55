"""
The engine on real tensors: whatever the batch, the cache and the pressure, a request's tokens and
every float are those it gets alone.
"""

from __future__ import annotations

import random
import time

import pytest

from model.generate import generate
from model.kv_pool import KVPool
from model.runner import Runner, build_transformer
from model.step import Ask, Sampling
from server.engine.job import Job
from server.engine.live import Live
from server.engine.pages import PagePool
from server.engine.request import Request
from server.engine.scheduler import Scheduler
from server.engine.worker import Worker
from server.metrics import Metrics
from tests.reference import PROMPTS
from tests.weights.tiny import tiny_hf
from weights.catalog import resolve
from weights.load import load

GREEDY = Sampling(temperature=0.0)
NUM_TOKENS = 24


class Bench:
    """A worker over a pool of its own; nothing is shared between two of them but the weights."""

    def __init__(self, checkpoint, transformer, num_pages=256, max_batch=8, max_batch_tokens=64):
        runner = Runner(transformer, KVPool(checkpoint.config, num_pages))
        self.pool = PagePool(num_pages, runner.page_size)
        self.scheduler = Scheduler(
            self.pool, max_batch=max_batch, max_batch_tokens=max_batch_tokens
        )
        self.worker = Worker(runner, self.scheduler, Metrics(), time.monotonic)

    def run(self, requests, cancel=()) -> list:
        """[(drawn, scored, scored_reports, reason)]; `cancel` are tickets, one a step."""
        jobs = [Job(i, request, self.pool.page_size) for i, request in enumerate(requests)]
        self.worker.add([Live(job, None, job.ticket, 0.0) for job in jobs])
        cancel = list(cancel)
        while self.worker.has_work:
            self.worker.step()
            if cancel:
                self.worker.cancel(cancel.pop(), has_enough=False)
        told = [([], [], [], []) for _ in requests]
        for live, update in self.worker.take_updates():
            drawn, scored, reports, reasons = told[live.index]
            drawn += [(each.drawn, each.report) for each in update.drawn]
            scored += update.scored
            reports += update.scored_reports
            reasons += [update.ending.reason] if update.ending else []
        assert self.pool.num_held == 0
        return told


def wishes(prompts, rng: random.Random) -> list[Request]:
    """Several requests a prompt, each with wishes of its own, in any order."""
    requests = []
    for i, prompt in enumerate(prompts):
        for j, sampling in enumerate(
            (GREEDY, Sampling(seed=i), Sampling(temperature=0.7, top_p=0.9, presence_penalty=1.0))
        ):
            requests.append(
                Request(
                    id=f"{i}-{j}",
                    prompt=tuple(prompt),
                    max_tokens=rng.randint(4, NUM_TOKENS),
                    sampling=sampling,
                    ask=Ask(top=3) if j else None,
                    prompt_ask=Ask(top=2, summary=True) if j == 2 else None,
                )
            )
    rng.shuffle(requests)
    return requests


@pytest.fixture(scope="module", params=["llama", "gemma3", "smollm2-135m-instruct"])
def model(request, tmp_path_factory):
    """(checkpoint, transformer, prompts)"""
    rng = random.Random(7)
    if request.param.startswith("smollm2"):
        checkpoint = load(resolve(request.param))
        prompts = [checkpoint.tokenizer.encode(text).ids for text in PROMPTS[:4]]
    else:
        checkpoint = load(tiny_hf(tmp_path_factory.mktemp("tiny"), request.param))
        shared = [rng.randrange(3, 60) for _ in range(40)]
        prompts = [shared[: rng.randint(1, 40)] + [rng.randrange(3, 60)] for _ in range(8)]
    return checkpoint, build_transformer(checkpoint), prompts


def test_greedy_output_is_the_naive_loops(model):
    checkpoint, transformer, prompts = model
    requests = [Request(id="r", prompt=tuple(p), max_tokens=12, sampling=GREEDY) for p in prompts]
    told = Bench(checkpoint, transformer).run(requests)
    for prompt, (drawn, *_) in zip(prompts, told, strict=True):
        assert [score.token for score, _ in drawn] == generate(transformer, list(prompt), 12)


def test_a_crowd_under_pressure_gets_what_each_gets_alone(model):
    checkpoint, transformer, prompts = model
    requests = wishes(prompts, random.Random(3))
    expected = [Bench(checkpoint, transformer).run([each])[0] for each in requests]
    size = Bench(checkpoint, transformer).pool.page_size
    longest = max(-(-(len(r.prompt) + NUM_TOKENS) // size) for r in requests)
    crowd = Bench(checkpoint, transformer, num_pages=longest + 2, max_batch_tokens=24)
    assert crowd.run(requests) == expected
    assert crowd.scheduler.num_preemptions > 0


def test_cancelling_some_leaves_every_float_of_the_others(model):
    checkpoint, transformer, prompts = model
    requests = wishes(prompts, random.Random(5))
    bench = Bench(checkpoint, transformer)
    whole = bench.run(requests)
    again = bench.run(requests, cancel=range(0, len(requests), 3))  # and on a warm cache
    for told, before in zip(again, whole, strict=True):
        if told[3] == ["length"]:
            assert told == before
        else:
            assert told[3] == ["cancelled"]
            assert told[0] == before[0][: len(told[0])]
