"""
A step of 16 decoding rows without HTTP: how much of it is not the model. The last line is one line
of JSON.

`model` is the forward pass and the tied projection, which finds the likeliest token where it
computes the logits; the rest is scheduling, sampling, queueing and publishing.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from torch import Tensor

from benchmarks.load import random_prompts
from model.huge_pages import use_huge_pages
from model.kernels import Projected, Wanted
from model.paged import Batch
from model.precision import Precision
from model.runner import Runner, build_runner
from model.step import Ask, Sampling
from server.engine.engine import Engine
from server.engine.request import Request
from weights.catalog import resolve
from weights.load import load

ROWS, TOKENS = 16, 48
T = TypeVar("T")


class Timed:
    """Stands in front of a runner's forward pass and tied matrix; adds up the seconds in them."""

    def __init__(self, runner: Runner) -> None:
        self.seconds = 0.0
        self._forward, self._embedding = runner.forward, runner.transformer.embedding
        self.kernels, self.vocab_size = runner.transformer.kernels, runner.vocab_size
        self.lookup = self._embedding.lookup
        runner.forward = self.forward  # type: ignore[method-assign]
        runner.transformer = replace(runner.transformer, embedding=self)  # type: ignore[arg-type]

    def forward(self, batch: Batch) -> Tensor:
        return self._time(self._forward, batch)

    def logits(self, hidden: Tensor) -> Tensor:
        return self._time(self._embedding.logits, hidden)

    def project(self, hidden: Tensor, wanted: Wanted) -> Projected:
        """What a greedy row is drawn by is reduced where its logits are computed."""
        return self._time(self._embedding.project, hidden, wanted)

    def _time(self, call: Callable[..., T], *arguments: object) -> T:
        started = time.perf_counter()
        try:
            return call(*arguments)
        finally:
            self.seconds += time.perf_counter() - started


async def decode(engine: Engine, sampling: Sampling, ask: Ask | None, seed: int) -> None:
    requests = [
        Request(f"{seed}-{i}", tuple(prompt), TOKENS, sampling, ask)
        for i, prompt in enumerate(random_prompts(ROWS, 4, seed))
    ]
    async with engine.submit(requests) as updates:
        async for _, update in updates:
            assert update.ending is None or update.ending.error is None


async def measure(precision: Precision) -> dict[str, Any]:
    checkpoint = load(resolve("smollm2-135m-instruct"))
    threads = os.cpu_count()
    runner = build_runner(checkpoint, precision=precision, num_pages=256, threads=threads)
    use_huge_pages(runner.transformer.storages())  # as the server does
    timed = Timed(runner)
    engine = Engine(runner, max_batch=ROWS, max_batch_tokens=512, max_queue=64)
    engine.start()
    result: dict[str, Any] = {"rows": ROWS, "precision": precision}
    for name, sampling, ask in (
        ("greedy", Sampling(temperature=0.0), None),
        ("greedy_with_logprobs", Sampling(temperature=0.0), Ask()),
        ("sampled", Sampling(temperature=0.8), None),
        ("top_p", Sampling(temperature=0.8, top_p=0.95), None),
        ("top_p_with_logprobs", Sampling(temperature=0.8, top_p=0.95), Ask()),
    ):
        shares = []
        for seed in range(5):
            timed.seconds, started = 0.0, time.perf_counter()
            await decode(engine, sampling, ask, seed)
            shares.append(1 - timed.seconds / (time.perf_counter() - started))
        result[f"outside_the_model_{name}"] = round(statistics.median(shares), 4)
    engine.stop()
    return result


if __name__ == "__main__":
    for how in ("float32", "auto"):
        print(json.dumps(asyncio.run(measure(how))))
