"""
Ten minutes of mixed load on the default checkpoint: a fifth of the clients leave, a tenth send
nonsense.

Fails on any 5xx, on a canary whose answer changes, on memory that grows by a MB a minute in the
last half, on a /health that takes over 250 ms once in a hundred, on files that pile up. One line of
progress every ten seconds; the last line is one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from benchmarks.process import Server

NUM_CLIENTS = 24
MAX_SLOPE = 1.0  # MB a minute
MAX_HEALTH_MS = 250.0  # at the 99th percentile
MAX_MORE_FILES = (
    2 * NUM_CLIENTS
)  # open at one time than at another: a socket a client, and a new one
CANARY = {"prompt": "The capital of France is", "max_tokens": 12, "temperature": 0, "logprobs": 3}
WORDS = ["the", "of", "and", "in", "is", "you", "that", "was", "for", "on", "are", "with", "his"]
YES_OR_NO = {"name": "answer", "schema": {"enum": ["yes", "no"]}}
# The routes beside the first two, each with a body made of a prompt.
OTHER_ROUTES: dict[str, Callable[[str], dict[str, Any]]] = {
    "/tokenize": lambda prompt: {"prompt": prompt},
    "/score": lambda prompt: {"prompt": prompt, "continuations": [" the end", " a start", " of"]},
    "/surprisal": lambda prompt: {"text": prompt, "by": "word"},
    "/v1/completions": lambda prompt: {"prompt": prompt, "max_tokens": 8, "logprobs": 2},
    "/v1/chat/completions": lambda prompt: {
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": 8,
        "response_format": {"type": "json_schema", "json_schema": YES_OR_NO},
    },
}
HOSTILE: list[bytes] = [
    b"{",
    b'{"prompt": "\\ud800"}',
    b'{"prompt": "a", "max_tokens": "5"}',
    b'{"prompt": "a", "temperature": NaN}',
    b'{"prompt": [99999999]}',
    b'{"prompt": "a", "nonsense": 1}',
    b'{"prompt": "' + b"word " * 50_000 + b'"}',
    b"[" * 100_000,
]


@dataclass(slots=True)
class Tally:
    statuses: Counter[int] = field(default_factory=Counter)
    left: int = 0
    health_ms: list[float] = field(default_factory=list)
    resident: list[tuple[float, float]] = field(default_factory=list)  # (minutes, MB)
    threads_and_files: list[tuple[int, int]] = field(default_factory=list)


def mixed(chance: random.Random) -> tuple[str, dict[str, Any]]:
    prompt = " ".join(chance.choices(WORDS, k=chance.choice([3, 20, 80, 300])))
    kind = chance.random()
    if kind < 0.2:
        return "/next-token-probabilities", {"prompt": prompt, "top_k": 20, "full": "base64"}
    if kind < 0.5:
        path = chance.choice(list(OTHER_ROUTES))
        return path, OTHER_ROUTES[path](prompt)
    body: dict[str, Any] = {"prompt": prompt, "max_tokens": chance.choice([1, 8, 32])}
    body |= chance.choice([{}, {"n": 3}, {"logprobs": 5}, {"prompt_logprobs": 2}, {"top_p": 0.9}])
    return "/generate", body | {"stream": chance.random() < 0.5}


async def client(url: str, end: float, chance: random.Random, tally: Tally) -> None:
    async with httpx.AsyncClient(base_url=url, timeout=120.0) as http:
        while time.monotonic() < end:
            await one(http, chance, tally)


async def one(http: httpx.AsyncClient, chance: random.Random, tally: Tally) -> None:
    kind = chance.random()
    if kind < 0.1:
        headers = {"Content-Type": "application/json"}
        answer = await http.post("/generate", content=chance.choice(HOSTILE), headers=headers)
        tally.statuses[answer.status_code] += 1
        return
    path, body = mixed(chance)
    patience = chance.uniform(0.01, 1.5) if kind < 0.3 else None
    try:
        async with asyncio.timeout(patience):
            answer = await http.post(path, json=body)
            tally.statuses[answer.status_code] += 1
    except TimeoutError:
        tally.left += 1


async def watch(server: Server, end: float, tally: Tally) -> None:
    began = time.monotonic()
    async with httpx.AsyncClient(base_url=server.url, timeout=10.0) as http:
        while time.monotonic() < end:
            asked = time.perf_counter()
            (await http.get("/health")).raise_for_status()
            tally.health_ms.append((time.perf_counter() - asked) * 1e3)
            minutes, megabytes = (time.monotonic() - began) / 60, server.resident_bytes() / 1e6
            tally.resident.append((minutes, megabytes))
            folder = Path(f"/proc/{server.process.pid}")
            counts = len(list((folder / "task").iterdir())), len(list((folder / "fd").iterdir()))
            tally.threads_and_files.append(counts)
            if len(tally.resident) % 10 == 0:
                print(f"{minutes:.1f} min, {megabytes:.0f} MB, {dict(tally.statuses)}", flush=True)
            await asyncio.sleep(1.0)


def canary(url: str) -> Any:  # noqa: ANN401  an answer's JSON
    return httpx.post(f"{url}/generate", json=CANARY, timeout=120.0).json()["choices"]


def slope(points: list[tuple[float, float]]) -> float:
    """MB a minute, by least squares."""
    return statistics.linear_regression(*zip(*points, strict=True)).slope


async def soak(server: Server, minutes: float) -> Tally:
    tally, end = Tally(), time.monotonic() + 60 * minutes
    clients = [client(server.url, end, random.Random(i), tally) for i in range(NUM_CLIENTS)]
    await asyncio.gather(watch(server, end, tally), *clients)
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    minutes = parser.parse_args().minutes
    with Server("--kv-cache-tokens", "16384", "--max-queue", "64") as server:
        before = canary(server.url)
        tally = asyncio.run(soak(server, minutes))
        is_same = canary(server.url) == before
    half = len(tally.resident) // 2
    threads, files = zip(*tally.threads_and_files[half:], strict=True)
    result = {
        "minutes": minutes,
        "statuses": dict(sorted(tally.statuses.items())),
        "clients_that_left": tally.left,
        "canary_is_same": is_same,
        "mb_a_minute": round(slope(tally.resident[half:]), 3),
        "health_p99_ms": round(statistics.quantiles(tally.health_ms, n=100)[98], 1),
        "threads": [min(threads), max(threads)],
        "files": [min(files), max(files)],
    }
    print(json.dumps(result))
    sys.exit(
        not is_same
        or any(status >= 500 for status in tally.statuses)
        or slope(tally.resident[half:]) >= MAX_SLOPE
        or float(result["health_p99_ms"]) >= MAX_HEALTH_MS
        or max(files) - min(files) > MAX_MORE_FILES
    )


if __name__ == "__main__":
    main()
