"""
What finding the 20 most likely tokens costs, as a share of the decoding step that it is part of:
of one row and of 16. In one process, without HTTP.
"""

from __future__ import annotations

import os
import statistics
import time
from typing import Any

import model.answers
from benchmarks.load import random_prompts
from model.distribution import reports
from model.runner import Runner, build_runner
from model.step import Ask, Row, Sampling
from weights.catalog import resolve
from weights.load import load

LENGTH, STEPS = 32, 15
TOP = Ask(top=20)


def shares(name: str) -> dict[str, dict[str, float]]:
    """By the number of rows."""
    runner = build_runner(load(resolve(name)), num_pages=64, threads=os.cpu_count())
    return {str(count): share(runner, count) for count in (1, 16)}


def share(runner: Runner, num_rows: int) -> dict[str, float]:
    prompts = random_prompts(num_rows, LENGTH + 1, seed=num_rows)
    pages = [range(3 * i, 3 * i + 3) for i in range(num_rows)]
    greedy = Sampling(temperature=0.0)
    runner.step([Row(p[:LENGTH], 0, own[:2]) for p, own in zip(prompts, pages, strict=True)])
    rows = [
        Row(prompt[LENGTH:], LENGTH, own, greedy, TOP)
        for prompt, own in zip(prompts, pages, strict=True)
    ]
    found = [one_step(runner, rows) for _ in range(STEPS)]
    return {"median": round(statistics.median(found), 4), "max": round(max(found), 4)}


def one_step(runner: Runner, rows: list[Row]) -> float:
    """Selection and its Scores over the whole step."""
    selecting = 0.0

    def timed(*args: Any) -> Any:  # noqa: ANN401  what reports() takes and gives
        nonlocal selecting
        started = time.perf_counter()
        told = reports(*args)
        selecting += time.perf_counter() - started
        return told

    model.answers.reports = timed
    started = time.perf_counter()
    sampled = runner.step(rows)
    took = time.perf_counter() - started
    model.answers.reports = reports
    reported = [each.drawn[0].report for each in sampled]
    assert all(each is not None and len(each.top) == 20 for each in reported)
    return selecting / took
