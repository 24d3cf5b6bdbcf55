"""
What a long prompt does to those already decoding: gaps between tokens of four streams while a
prompt of 4,000 tokens is run, over the same tokens' gaps where none is. With speculation several
tokens come at once: where half of all gaps are none, the median is any gap. There the mean, and the
median of eight gaps' means, say what a reader waits. The last line is one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import httpx

from benchmarks.load import greedy, random_prompts
from benchmarks.process import Server

STREAMS, LONG = 4, 4000
TOKENS, CACHE = 4000, 24576  # of a stream, which is to outlast the prompt; of the cache


@dataclass
class Gap:
    when: float
    token: int  # of its stream
    seconds: float  # since the token before


Gaps = list[Gap]  # of one stream


async def stream(http: httpx.AsyncClient, seed: int, gaps: Gaps) -> None:
    body = greedy(random_prompts(1, 32, seed)[0], TOKENS) | {"stream": True}
    last, token = None, 0
    async with http.stream("POST", "/generate", json=body) as response:
        async for line in response.aiter_lines():
            now = time.perf_counter()
            if line.startswith("data: {"):
                if last is not None:
                    gaps.append(Gap(now, token, now - last))
                last, token = now, token + 1


async def run_streams(
    http: httpx.AsyncClient, seed: int, until: Callable[[list[Gaps]], Awaitable[None]]
) -> list[Gaps]:
    """All of them, as long as `until` takes, ten minutes at most."""
    gaps: list[Gaps] = [[] for _ in range(STREAMS)]
    streams = [asyncio.create_task(stream(http, seed + i, each)) for i, each in enumerate(gaps)]
    async with asyncio.timeout(600.0):
        await until(gaps)
    for task in streams:
        task.cancel()
    await asyncio.gather(*streams, return_exceptions=True)
    return gaps


async def beside_prompt(http: httpx.AsyncClient, seed: int) -> tuple[float, list[Gaps]]:
    """Seconds of the prompt, and the gaps meanwhile."""
    began = ended = 0.0

    async def run_prompt(_: list[Gaps]) -> None:
        nonlocal began, ended
        await asyncio.sleep(3.0)
        began = time.perf_counter()
        await http.post("/generate", json=greedy(random_prompts(1, LONG, seed + 99)[0], 1))
        ended = time.perf_counter()

    gaps = await run_streams(http, seed, run_prompt)
    beside = [[gap for gap in each if began < gap.when < ended] for each in gaps]
    assert all(each[-1].token < TOKENS - 1 for each in beside), "a stream ended before the prompt"
    return ended - began, beside


async def without_prompt(http: httpx.AsyncClient, seed: int, beside: list[Gaps]) -> list[Gaps]:
    """The gaps of the same tokens, all the streams running."""

    async def reach_the_same(gaps: list[Gaps]) -> None:
        while not all(
            mine and mine[-1].token >= theirs[-1].token
            for mine, theirs in zip(gaps, beside, strict=True)
        ):
            await asyncio.sleep(0.05)

    return [
        [gap for gap in mine if theirs[0].token <= gap.token <= theirs[-1].token]
        for mine, theirs in zip(await run_streams(http, seed, reach_the_same), beside, strict=True)
    ]


def means(gaps: list[Gaps], count: int) -> list[float]:
    """Milliseconds a token, of so many tokens in turn."""
    return [
        1e3 * statistics.fmean(gap.seconds for gap in each[i : i + count])
        for each in gaps
        for i in range(0, len(each) - count + 1, count)
    ]


async def measure(url: str, seed: int) -> dict[str, float]:
    async with httpx.AsyncClient(base_url=url, timeout=600.0) as http:
        seconds, beside = await beside_prompt(http, seed)
        alone = await without_prompt(http, seed, beside)
    during, without = means(beside, 1), means(alone, 1)
    median, median_without = statistics.median(during), statistics.median(without)
    mean, mean_without = statistics.fmean(during), statistics.fmean(without)
    of_8, of_8_without = (statistics.median(means(gaps, 8)) for gaps in (beside, alone))
    percentiles = statistics.quantiles(during, n=100)
    told = {
        "gap_ms_without": median_without,
        "gap_ms_during": median,
        "ratio_of_medians": median / median_without,
        "mean_gap_ms_without": mean_without,
        "mean_gap_ms_during": mean,
        "ratio_of_means": mean / mean_without,
        "median_of_8_ms_without": of_8_without,
        "median_of_8_ms_during": of_8,
        "ratio_of_medians_of_8": of_8 / of_8_without,
        "p95_gap_ms_during": percentiles[94],
        "p99_gap_ms_during": percentiles[98],
        "worst_gap_ms_during": max(during),
    }
    return {"prefill_s": round(seconds, 2)} | {key: round(told[key], 2) for key in told}


if __name__ == "__main__":
    result = {}
    for speculation in ("off", "auto"):
        with Server("--kv-cache-tokens", str(CACHE), "--speculation", speculation) as server:
            asyncio.run(measure(server.url, seed=0))  # the engine learns how long its steps take
            result[f"speculation_{speculation}"] = asyncio.run(measure(server.url, seed=1000))
    print(json.dumps(result))
