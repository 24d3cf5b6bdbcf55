"""
Python's share of a step: all that a step of the runner does outside native functions, of one row
and of sixteen, in the model's default precision. The last line is one line of JSON.

The clock around a native call is a part of Python's share only by its own cost, which is measured
and taken off.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from typing import Any

from benchmarks.load import random_prompts
from model.huge_pages import use_huge_pages
from model.runner import Runner, build_runner
from model.step import Row, Sampling
from weights.catalog import resolve
from weights.load import load

CONTEXT, STEPS, THREADS = 160, 200, 2
NUM_ROWS = (1, 16)


class Timed:
    """Stands in front of the native library; adds up the seconds in it."""

    def __init__(self, library: object) -> None:
        self.seconds, self.num_calls, self._library = 0.0, 0, library

    def __getattr__(self, name: str) -> Callable[..., object]:
        function = getattr(self._library, name)

        def call(*arguments: object) -> object:
            started = time.perf_counter_ns()
            result = function(*arguments)
            self.seconds += 1e-9 * (time.perf_counter_ns() - started)
            self.num_calls += 1
            return result

        setattr(self, name, call)  # found at once the next time
        return call


class Nothing:
    """A library whose functions take no time."""

    def act(self, *_: object) -> None: ...


def seconds_a_timer(count: int = 10_000) -> float:
    """What a timed call costs beside what it adds up."""
    timed, plain = Timed(Nothing()), Nothing()
    timed.act(1, 2, 3)
    timed.seconds = 0.0
    started = time.perf_counter()
    for _ in range(count):
        timed.act(1, 2, 3)
    with_timer = time.perf_counter() - started - timed.seconds
    started = time.perf_counter()
    for _ in range(count):
        plain.act(1, 2, 3)
    return max(0.0, with_timer - (time.perf_counter() - started)) / count


def measure(runner: Runner, timed: Timed, num_rows: int) -> dict[str, float]:
    num_pages = CONTEXT // runner.page_size + 1
    prompts = random_prompts(num_rows, CONTEXT, seed=0)
    pages = [list(range(r * num_pages, (r + 1) * num_pages)) for r in range(num_rows)]
    runner.step([Row(each, 0, where) for each, where in zip(prompts, pages, strict=True)])
    greedy, timer = Sampling(temperature=0.0), seconds_a_timer()
    steps, outside = [], []
    for step in range(STEPS):
        rows = [
            Row([prompt[step % CONTEXT]], CONTEXT, where, sampling=greedy)
            for prompt, where in zip(prompts, pages, strict=True)
        ]
        timed.seconds, timed.num_calls = 0.0, 0
        started = time.perf_counter()
        runner.step(rows)
        steps.append(time.perf_counter() - started - timer * timed.num_calls)
        outside.append(steps[-1] - timed.seconds)
    shares = [part / whole for part, whole in zip(outside, steps, strict=True)]
    return {
        "rows": num_rows,
        "step_ms": round(1e3 * statistics.median(steps), 2),
        "python_ms": round(1e3 * statistics.median(outside), 3),
        "least_python_ms": round(1e3 * min(outside), 3),
        "python_share": round(statistics.median(shares), 4),
        "native_calls": timed.num_calls,
    }


def main() -> None:
    checkpoint = load(resolve("smollm2-135m-instruct"))
    runner = build_runner(checkpoint, num_pages=256, threads=THREADS)
    use_huge_pages(runner.transformer.storages())  # as the server does
    kernels: Any = runner.transformer.kernels
    kernels._library = kernels._locked = timed = Timed(kernels._library)
    print(
        json.dumps(
            {
                "context": CONTEXT,
                "steps": STEPS,
                "threads": THREADS,
                "measured": [measure(runner, timed, each) for each in NUM_ROWS],
            }
        )
    )


if __name__ == "__main__":
    main()
