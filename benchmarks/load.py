"""Requests in number: what the benchmarks and the soak send."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from typing import Any

import httpx

Body = dict[str, Any]


def random_prompts(count: int, length: int, seed: int, vocab_size: int = 40_000) -> list[list[int]]:
    """Distinct token ids: no prefix cache can help by accident."""
    chance = random.Random(seed)
    return [[chance.randrange(1000, vocab_size) for _ in range(length)] for _ in range(count)]


def greedy(prompt: list[int], max_tokens: int) -> Body:
    return {
        "prompt": prompt,
        "max_tokens": max_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "add_special_tokens": False,
    }


async def _all(url: str, bodies: Sequence[Body]) -> list[Body]:
    limits = httpx.Limits(max_connections=len(bodies))
    async with httpx.AsyncClient(base_url=url, timeout=600.0, limits=limits) as client:
        answers = await asyncio.gather(*(client.post("/generate", json=body) for body in bodies))
    for answer in answers:
        answer.raise_for_status()
    return [answer.json() for answer in answers]


def together(url: str, bodies: Sequence[Body]) -> tuple[float, list[Body]]:
    """Send all at once -> seconds until the last answer, and the answers in order."""
    started = time.perf_counter()
    answers = asyncio.run(_all(url, bodies))
    return time.perf_counter() - started, answers
