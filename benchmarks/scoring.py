"""
What an evaluation harness sends, 16 requests at once over the same 16 one by one: each scores one
choice of a multiple-choice question by `echo`, `logprobs` 1 and `max_tokens` 1 on /v1/completions.

Every round has new questions. Rounds alternate. The last line is one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import time
from typing import Any

import httpx

from benchmarks.load import random_prompts
from benchmarks.process import Server

QUESTIONS, CHOICES = 4, 4
CHOICE_TOKENS = 2
ROUNDS = 5


def requests(question_tokens: int, seed: int) -> list[dict[str, Any]]:
    contexts = random_prompts(QUESTIONS, question_tokens, seed)
    return [
        {
            "prompt": [context + choice],
            "temperature": 0,
            "max_tokens": 1,
            "logprobs": 1,
            "echo": True,
            "seed": 1234,
        }
        for context in contexts
        for choice in random_prompts(CHOICES, CHOICE_TOKENS, seed + context[0])
    ]


async def ask(url: str, bodies: list[dict[str, Any]], num_concurrent: int) -> float:
    """Seconds until all are answered."""
    gate = asyncio.Semaphore(num_concurrent)
    async with httpx.AsyncClient(base_url=url, timeout=600.0) as client:

        async def one(body: dict[str, Any]) -> None:
            async with gate:
                answer = await client.post("/v1/completions", json=body)
            [choice] = answer.raise_for_status().json()["choices"]
            assert len(choice["logprobs"]["token_logprobs"]) == len(body["prompt"][0]) + 1

        began = time.perf_counter()
        await asyncio.gather(*map(one, bodies))
        return time.perf_counter() - began


def measure(url: str, question_tokens: int) -> dict[str, float]:
    found = []
    for i in range(ROUNDS + 1):
        alone = asyncio.run(ask(url, requests(question_tokens, 1000 * question_tokens + i), 1))
        together = requests(question_tokens, 1000 * question_tokens + 500 + i)
        found.append(alone / asyncio.run(ask(url, together, QUESTIONS * CHOICES)))
    found = found[1:]  # the first warms up
    return {
        "median": round(statistics.median(found), 2),
        "min": round(min(found), 2),
        "max": round(max(found), 2),
    }


def main() -> None:
    flags = ("--threads", str(os.cpu_count() or 1), "--kv-cache-tokens", "16384")
    with Server("smollm2-135m-instruct", *flags) as server:
        result = {f"questions_of_{size}": measure(server.url, size) for size in (4, 16, 48)}
    print(json.dumps({"16_scored_at_once_over_one_by_one": result}))


if __name__ == "__main__":
    main()
