"""
One client for every server that speaks OpenAI's `/v1/completions`: streams, greedy, full length.

Prompts are token ids, so that no tokenizer is measured.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

import httpx

PATIENCE = 900.0  # seconds: a peer takes minutes for a long queue


@dataclass(frozen=True, slots=True)
class Streamed:
    num_tokens: int
    started: float  # of time.perf_counter
    first: float  # when the first token was there
    last: float

    @property
    def tokens_a_second(self) -> float:
        """Of decoding: the tokens after the first, over the time they took."""
        return (self.num_tokens - 1) / (self.last - self.first)


async def _stream(client: httpx.AsyncClient, prompt: Sequence[int], max_tokens: int) -> Streamed:
    body = {
        "prompt": list(prompt),
        "max_tokens": max_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    started, times, num_tokens = time.perf_counter(), [], 0
    async with client.stream("POST", "/v1/completions", json=body) as answer:
        if answer.status_code != 200:
            raise RuntimeError(f"{answer.status_code} {(await answer.aread())[:500]!r}")
        async for line in answer.aiter_lines():
            if not line.startswith("data: {"):
                continue
            event = json.loads(line[6:])
            if event.get("choices"):
                times.append(time.perf_counter())
            num_tokens = (event.get("usage") or {}).get("completion_tokens", num_tokens)
    if num_tokens != max_tokens:
        raise RuntimeError(f"{num_tokens} tokens came of {max_tokens}")
    return Streamed(num_tokens, started, times[0], times[-1])


async def _all(url: str, prompts: Sequence[Sequence[int]], max_tokens: int) -> list[Streamed]:
    limits = httpx.Limits(max_connections=len(prompts))
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE, limits=limits) as client:
        return await asyncio.gather(*(_stream(client, prompt, max_tokens) for prompt in prompts))


def stream(url: str, prompts: Sequence[Sequence[int]], max_tokens: int) -> list[Streamed]:
    """All at once, one connection each."""
    return asyncio.run(_all(url, prompts, max_tokens))


def seconds(streams: Sequence[Streamed]) -> float:
    """From the first request sent to the last token."""
    return max(s.last for s in streams) - min(s.started for s in streams)
