"""
What a long prompt does to those already decoding: gaps between tokens of four streams while a
prompt of 4,000 tokens is run, over the same tokens' gaps where none is. The last line is one line
of JSON.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from dataclasses import dataclass

import httpx

from benchmarks.load import greedy, random_prompts
from benchmarks.process import Server

STREAMS, LONG, TOKENS = 4, 4000, 2000


@dataclass
class Gap:
    when: float
    token: int  # of its stream
    seconds: float  # since the token before


async def stream(http: httpx.AsyncClient, seed: int, gaps: list[Gap]) -> None:
    body = greedy(random_prompts(1, 32, seed)[0], TOKENS) | {"stream": True}
    last, token = None, 0
    async with http.stream("POST", "/generate", json=body) as response:
        async for line in response.aiter_lines():
            now = time.perf_counter()
            if line.startswith("data: {"):
                if last is not None:
                    gaps.append(Gap(now, token, now - last))
                last, token = now, token + 1


async def measure(url: str, seed: int) -> dict[str, float]:
    async with httpx.AsyncClient(base_url=url, timeout=600.0) as http:
        gaps: list[Gap] = []
        streams = [asyncio.create_task(stream(http, seed + i, gaps)) for i in range(STREAMS)]
        await asyncio.sleep(3.0)
        began = time.perf_counter()
        await http.post("/generate", json=greedy(random_prompts(1, LONG, seed + 99)[0], 1))
        ended = time.perf_counter()
        for task in streams:
            task.cancel()
        await asyncio.gather(*streams, return_exceptions=True)
        beside = [gap for gap in gaps if began < gap.when < ended]
        alone: list[Gap] = []
        await asyncio.gather(*(stream(http, seed + i, alone) for i in range(STREAMS)))
    first, last = min(gap.token for gap in beside), max(gap.token for gap in beside)
    without = [gap.seconds for gap in alone if first <= gap.token <= last]
    during = [gap.seconds for gap in beside]
    percentiles = statistics.quantiles(during, n=100)
    return {
        "prefill_s": round(ended - began, 2),
        "gap_ms_without": round(1e3 * statistics.median(without), 1),
        "gap_ms_during": round(1e3 * statistics.median(during), 1),
        "ratio_of_medians": round(statistics.median(during) / statistics.median(without), 2),
        "p95_gap_ms_during": round(1e3 * percentiles[94], 1),
        "p99_gap_ms_during": round(1e3 * percentiles[98], 1),
        "worst_gap_ms_during": round(1e3 * max(during), 1),
    }


if __name__ == "__main__":
    result = {}
    for speculation in ("off", "auto"):  # streams that repeat themselves lose their guesses, too
        with Server("--kv-cache-tokens", "16384", "--speculation", speculation) as server:
            asyncio.run(measure(server.url, seed=0))  # the engine learns how long its steps take
            result[f"speculation_{speculation}"] = asyncio.run(measure(server.url, seed=1000))
    print(json.dumps(result))
