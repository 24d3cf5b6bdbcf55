"""
A step of 16 decoding rows without HTTP: how much of it is not the model. The last line is one line
of JSON.

`model` is the forward pass and the tied projection; the rest is scheduling, sampling, queueing and
publishing.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import time
from typing import Any

from benchmarks.load import random_prompts
from model.embedding import TiedEmbedding
from model.runner import Runner, build_runner
from model.step import Ask, Sampling
from server.engine.engine import Engine
from server.engine.request import Request
from weights.catalog import resolve
from weights.load import load

ROWS, TOKENS = 16, 48


class Timed:
    """Stands in front of the transformer and adds up the seconds spent in it."""

    def __init__(self, runner: Runner) -> None:
        self.transformer, self.seconds = runner.transformer, 0.0
        self.embedding, self.kernels = self, runner.transformer.kernels

    def forward(self, *args: Any) -> Any:  # noqa: ANN401  whatever it takes
        return self._time(self.transformer.forward, *args)

    def logits(self, *args: Any) -> Any:  # noqa: ANN401
        return self._time(self.transformer.embedding.logits, *args)

    @property
    def vocab_size(self) -> int:
        embedding: TiedEmbedding = self.transformer.embedding
        return embedding.vocab_size

    def _time(self, call: Any, *args: Any) -> Any:  # noqa: ANN401
        started = time.perf_counter()
        try:
            return call(*args)
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


async def measure() -> dict[str, Any]:
    checkpoint = load(resolve("smollm2-135m-instruct"))
    runner = build_runner(checkpoint, num_pages=256, threads=os.cpu_count())
    timed = Timed(runner)
    runner.transformer = timed  # type: ignore[assignment]
    engine = Engine(runner, max_batch=ROWS, max_batch_tokens=512, max_queue=64)
    engine.start()
    result: dict[str, Any] = {"rows": ROWS}
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
    print(json.dumps(asyncio.run(measure())))
