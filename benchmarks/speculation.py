"""
What guessing is worth, without HTTP: seconds of one stream (and of two) with it over without, pairs
alternating. Texts that repeat what was said; free ones, greedy (where a small model soon repeats
itself) and sampled (where next to nothing repeats); and noise of four tokens, in which guesses are
nearly always wrong. The last line is one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import time
from collections.abc import Sequence
from typing import Any

from model.kv_pool import KVPool
from model.runner import Runner, build_runner
from model.step import Sampling
from server.engine.engine import Engine
from server.engine.request import Request
from server.metrics import Metrics
from server.text.tokenizer import TextTokenizer
from weights.catalog import resolve
from weights.load import load

MODEL, TOKENS, PAIRS = "smollm2-135m-instruct", 64, 3
STORY = (
    "Once there was a lighthouse keeper named Oren who counted ships. On Monday he saw four, on "
    "Tuesday seven, and on Wednesday none at all, because the fog lay on the water like wool."
)
CODE = (
    "def total(prices):\n    result = 0\n    for price in prices:\n        result += price\n"
    "    return result\n"
)
REPEATING = (
    f"Text: {STORY}\nThe same text once more: Once there was",
    f"# Before\n{CODE}\n# After, with the same code again\ndef total(",
    "1. apples\n2. pears\n3. plums\nThe list again:\n1. apples\n2. pears\n3. plums\nAgain:\n1.",
)
FREE = (
    "A letter from my grandmother about the garden:",
    "The history of glass begins",
    "Three questions that nobody has asked yet:",
)
NOISE = Sampling(allowed_ids=(1000, 2000, 3000, 4000), temperature=100.0, seed=5)
GREEDY, SAMPLED = Sampling(temperature=0.0), Sampling(temperature=1.0, seed=11)


class Side:
    """An engine with a cache of its own over shared weights."""

    def __init__(self, runner: Runner, pool: KVPool, *, speculates: bool) -> None:
        self.metrics = Metrics()
        self.engine = Engine(
            Runner(runner.transformer, pool),
            max_batch=8,
            max_batch_tokens=512,
            max_queue=64,
            speculates=speculates,
            metrics=self.metrics,
        )
        self.engine.start()

    async def seconds(self, prompts: Sequence[tuple[int, ...]], sampling: Sampling) -> float:
        requests = [
            Request(f"{i}", prompt, TOKENS, sampling, cache_salt=f"{time.perf_counter()}")
            for i, prompt in enumerate(prompts)
        ]
        first, last = 0.0, 0.0
        async with self.engine.submit(requests) as updates:
            async for _, update in updates:
                last = time.perf_counter()
                first = first or (last if update.drawn else 0.0)
                assert update.ending is None or update.ending.error is None
        return last - first

    def guesses(self) -> dict[str, float]:
        page = self.metrics.render().decode().splitlines()
        values = dict(line.split() for line in page if line.startswith("tiedlm_draft_tokens"))
        return {name: float(value) for name, value in values.items()}


async def measure() -> dict[str, Any]:
    checkpoint = load(resolve(MODEL))
    tokenizer = TextTokenizer(checkpoint.tokenizer, checkpoint.config.vocab_size)
    runner = build_runner(checkpoint, num_pages=1, threads=os.cpu_count())
    sides = [
        Side(runner, KVPool(checkpoint.config, 128), speculates=each) for each in (True, False)
    ]
    result: dict[str, Any] = {}
    cases = {
        "repeating": (REPEATING, 1, GREEDY),
        "repeating_two_streams": (REPEATING, 2, GREEDY),
        "free_greedy": (FREE, 1, GREEDY),
        "free_sampled": (FREE, 1, SAMPLED),
        "noise": (FREE, 1, NOISE),
    }
    for name, (texts, num_streams, sampling) in cases.items():
        before = sides[0].guesses()
        ratios = []
        for i in range(PAIRS * len(texts)):
            ids = tuple(tokenizer.encode(texts[i % len(texts)], True, True))
            prompts = [ids] * num_streams
            order = sides if i % 2 else sides[::-1]
            taken = {side: await side.seconds(prompts, sampling) for side in order}
            ratios.append(taken[sides[0]] / taken[sides[1]])
        after = sides[0].guesses()
        told = {key.split("_")[3]: after[key] - before[key] for key in after}
        quarters = statistics.quantiles(ratios, n=4)
        result[name] = {
            "median": round(statistics.median(ratios), 3),
            "quarters": [round(quarters[0], 3), round(quarters[2], 3)],
            **told,
        }
    for side in sides:
        side.engine.stop()
    return result


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure())))
