"""
What an evaluation harness sends, 16 requests at once over 16 one by one: each scores one choice of
a multiple-choice question by `echo`, `logprobs` 1 and `max_tokens` 1 on /v1/completions. And over
16 one by one where no prefix is shared, so that each choice runs its question again.

Every round has new questions. Rounds alternate. The last line is one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from typing import Any

import httpx

from benchmarks.load import random_prompts
from benchmarks.process import Server
from benchmarks.spread import spread

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


def measure(shared: str, unshared: str, question_tokens: int) -> dict[str, dict[str, float]]:
    """shared, unshared: servers with and without a prefix cache."""
    over, over_unshared = [], []
    for i in range(ROUNDS + 1):
        seeds = (1000 * question_tokens + 100 * i + part for part in range(3))
        alone, without, together = (requests(question_tokens, seed) for seed in seeds)
        seconds = asyncio.run(ask(shared, together, QUESTIONS * CHOICES))
        over.append(asyncio.run(ask(shared, alone, 1)) / seconds)
        over_unshared.append(asyncio.run(ask(unshared, without, 1)) / seconds)
    # The first warms up.
    return {"one_by_one": spread(over[1:]), "one_by_one_unshared": spread(over_unshared[1:])}


def main() -> None:
    flags = ("--threads", str(os.cpu_count() or 1), "--kv-cache-tokens", "16384")
    with (
        Server("smollm2-135m-instruct", *flags) as server,
        Server("smollm2-135m-instruct", *flags, "--prefix-cache", "off") as other,
    ):
        result = {
            f"questions_of_{size}": measure(server.url, other.url, size) for size in (4, 16, 48)
        }
    print(json.dumps({"16_scored_at_once_over": result}))


if __name__ == "__main__":
    main()
