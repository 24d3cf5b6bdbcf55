"""
What a long prompt does to those already decoding: gaps between tokens of four streams, before and
while a prompt of 4,000 tokens is run. The last line is one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Sequence

import httpx

from benchmarks.load import greedy, random_prompts
from benchmarks.process import Server

STREAMS, LONG = 4, 4000


async def stream(http: httpx.AsyncClient, seed: int, gaps: list[tuple[float, float]]) -> None:
    """Adds (when, seconds since the token before) for each token."""
    body = greedy(random_prompts(1, 32, seed)[0], 1500) | {"stream": True}
    last = None
    async with http.stream("POST", "/generate", json=body) as response:
        async for line in response.aiter_lines():
            now = time.perf_counter()
            if line.startswith("data: {"):
                if last is not None:
                    gaps.append((now, now - last))
                last = now


def percentile(values: Sequence[float], percent: int) -> float:
    return statistics.quantiles(values, n=100)[percent - 1]


async def measure(url: str, seed: int) -> dict[str, float]:
    gaps: list[tuple[float, float]] = []
    async with httpx.AsyncClient(base_url=url, timeout=600.0) as http:
        streams = [asyncio.create_task(stream(http, seed + i, gaps)) for i in range(STREAMS)]
        await asyncio.sleep(5.0)
        began = time.perf_counter()
        await http.post("/generate", json=greedy(random_prompts(1, LONG, seed + 99)[0], 1))
        ended = time.perf_counter()
        for task in streams:
            task.cancel()
        await asyncio.gather(*streams, return_exceptions=True)
    before = [gap for when, gap in gaps if began - 4.0 < when < began]
    during = [gap for when, gap in gaps if began < when < ended]
    return {
        "prefill_s": round(ended - began, 2),
        "gap_ms_before": round(1e3 * statistics.median(before), 1),
        "gap_ms_during": round(1e3 * statistics.median(during), 1),
        "ratio_of_medians": round(statistics.median(during) / statistics.median(before), 2),
        **{f"p{p}_gap_ms_during": round(1e3 * percentile(during, p), 1) for p in (95, 99)},
        "worst_gap_ms_during": round(1e3 * max(during), 1),
    }


if __name__ == "__main__":
    result = {}
    for speculation in ("off", "auto"):  # streams that repeat themselves lose their guesses, too
        with Server("--kv-cache-tokens", "16384", "--speculation", speculation) as server:
            asyncio.run(measure(server.url, seed=0))  # the engine learns how long its steps take
            result[f"speculation_{speculation}"] = asyncio.run(measure(server.url, seed=1000))
    print(json.dumps(result))
