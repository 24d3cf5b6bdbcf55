"""
Four times what a server can take, on the default checkpoint.

Half a minute at its capacity (as many clients as it has rows and places in the queue), half a
minute at four times that, each client asking again as soon as it was answered, or a second after it
was refused. The last line is one line of JSON; fails where accepted requests take longer than at
capacity, where refusals or /health take long, or where the server is not itself again within 5 s.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time

import httpx

from benchmarks.load import Body, greedy, random_prompts
from benchmarks.process import Server

BATCH, QUEUE = 4, 4
CAPACITY = BATCH + QUEUE
SECONDS = 30.0
PAUSE = 1.0  # seconds after a refusal: what it asks for
Told = list[tuple[int, float]]  # status, milliseconds


async def insist(http: httpx.AsyncClient, bodies: list[Body], end: float, told: Told) -> None:
    for body in bodies:
        if (asked := time.perf_counter()) >= end:
            return
        answer = await http.post("/generate", json=body)
        told.append((answer.status_code, (time.perf_counter() - asked) * 1e3))
        if answer.status_code == 429:
            await asyncio.sleep(PAUSE)


async def watch(http: httpx.AsyncClient, end: float, health: list[float]) -> None:
    while (asked := time.perf_counter()) < end:
        (await http.get("/health")).raise_for_status()
        health.append((time.perf_counter() - asked) * 1e3)
        await asyncio.sleep(0.1)


async def load(url: str, num_clients: int, seed: int) -> tuple[Told, list[float]]:
    told: Told = []
    health: list[float] = []
    limits = httpx.Limits(max_connections=num_clients + 1)
    prompts = [random_prompts(200, 32, seed + i) for i in range(num_clients)]
    bodies = [[greedy(prompt, 16) for prompt in each] for each in prompts]
    async with httpx.AsyncClient(base_url=url, timeout=120.0, limits=limits) as http:
        end = time.perf_counter() + SECONDS
        clients = [insist(http, each, end, told) for each in bodies]
        await asyncio.gather(watch(http, end, health), *clients)
    return told, health


def recover(url: str) -> float:
    """Seconds until a request is answered with nothing else in the server."""
    began = time.perf_counter()
    with httpx.Client(base_url=url, timeout=60.0) as http:
        while "\ntiedlm_num_requests_running 0.0" not in http.get("/metrics").text:
            time.sleep(0.05)
        [body] = [greedy(prompt, 1) for prompt in random_prompts(1, 8, 0)]
        http.post("/generate", json=body).raise_for_status()
    return time.perf_counter() - began


def p99(values: list[float]) -> float:
    return round(statistics.quantiles(values, n=100)[98], 1)


def main() -> None:
    flags = ("--max-batch", str(BATCH), "--max-queue", str(QUEUE), "--kv-cache-tokens", "4096")
    with Server(*flags) as server:
        before, _ = asyncio.run(load(server.url, CAPACITY, 1000))
        over, health = asyncio.run(load(server.url, 4 * CAPACITY, 2000))
        recovered = recover(server.url)
    at_capacity = [ms for status, ms in before if status == 200]
    accepted = [ms for status, ms in over if status == 200]
    refused = [ms for status, ms in over if status == 429]
    result = {
        "accepted_ms_at_capacity": round(statistics.median(at_capacity)),
        "accepted_ms_at_four_times": round(statistics.median(accepted)),
        "accepted_ratio": round(statistics.median(accepted) / statistics.median(at_capacity), 3),
        "answers_at_capacity": len(at_capacity),
        "answers_at_four_times": len(accepted),
        "refused": len(refused),
        "refused_ms_median": round(statistics.median(refused), 1),
        "refused_ms_p99": p99(refused),
        "health_ms_p99": p99(health),
        "recovered_seconds": round(recovered, 2),
        "others": sorted({status for status, _ in over} - {200, 429}),
    }
    print(json.dumps(result))
    is_kept = float(result["accepted_ratio"]) < 1.3 and not result["others"]  # type: ignore[arg-type]
    is_quick = max(p99(refused), p99(health)) < 250
    sys.exit(not (is_kept and is_quick and recovered < 5))


if __name__ == "__main__":
    main()
