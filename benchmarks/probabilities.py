"""
What probabilities cost beside a bare prefill of the same tokens, through HTTP, without a prefix
cache. Pairs alternate, since a shared machine's speed drifts: read the medians. The last line is
one line of JSON.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable
from typing import Any

import httpx

from benchmarks import selection
from benchmarks.load import greedy, random_prompts
from benchmarks.process import Server
from benchmarks.spread import spread

MODEL = "smollm2-135m-instruct"
THREADS = os.cpu_count() or 1
PAIRS = 7
WORDS = "the of and to in is that it was for on are with as his they at be this from have or by one"
Ask = Callable[[int], object]  # of a seed: one request, answered


class Client:
    def __init__(self, url: str) -> None:
        self.http = httpx.Client(base_url=url, timeout=600.0)

    def post(self, path: str, body: dict[str, Any], **headers: str) -> httpx.Response:
        answer = self.http.post(path, json=body, headers=headers)
        answer.raise_for_status()
        return answer

    def prefill(self, prompt: object) -> httpx.Response:
        return self.post("/generate", {"prompt": prompt, "max_tokens": 0})


def seconds(ask: Ask, seed: int) -> float:
    started = time.perf_counter()
    ask(seed)
    return time.perf_counter() - started


def ratios(ask: Ask, base: Ask) -> dict[str, float]:
    ask(0), base(0)
    return spread([seconds(ask, i) / seconds(base, i) for i in range(1, PAIRS + 1)])


def added_ms(ask: Ask, base: Ask, pairs: int = 40) -> dict[str, float]:
    ask(0), base(0)
    return spread([1e3 * (seconds(ask, i) - seconds(base, i)) for i in range(1, pairs + 1)])


def prompt_of(length: int, seed: int) -> list[int]:
    return random_prompts(1, length, seed)[0]


def text_of(num_words: int, seed: int) -> str:
    """A token a word."""
    return " ".join(random.Random(seed).choices(WORDS.split(), k=num_words))


def labels(count: int, seed: int) -> list[list[int]]:
    return random_prompts(count, 3, 10_000 + seed)


def distributions(client: Client) -> dict[str, Any]:
    """Over a greedy token of the same prompt: forward pass, projection and HTTP are in both."""

    def one_token(seed: int) -> object:
        return client.post("/generate", greedy(prompt_of(1, seed), 1))

    def as_base64(seed: int) -> object:
        body = {"prompt": prompt_of(1, 500 + seed), "top_k": 0, "full": "base64"}
        return client.post("/next-token-probabilities", body)

    def as_npy(seed: int) -> object:
        body = {"prompt": prompt_of(1, 900 + seed), "top_k": 0}
        return client.post("/next-token-probabilities", body, accept="application/x-npy")

    return {
        "base64_added_ms": added_ms(as_base64, one_token),
        "npy_added_ms": added_ms(as_npy, one_token),
    }


def measure(client: Client) -> dict[str, Any]:
    def score(count: int) -> Ask:
        def ask(seed: int) -> object:
            body = {"prompt": prompt_of(500, seed), "continuations": labels(count, seed)}
            return client.post("/score", body)

        return ask

    return {
        **distributions(client),
        "top_20_share_of_a_step": selection.shares(MODEL),
        "surprisal_of_1000_tokens_over_prefill": ratios(
            lambda seed: client.post("/surprisal", {"text": text_of(1000, seed)}),
            lambda seed: client.prefill(text_of(1000, seed)),
        ),
        "100_labels_over_one": ratios(score(100), score(1)),
    }


def main() -> None:
    flags = ("--threads", str(THREADS), "--kv-cache-tokens", "16384", "--precision", "float32")
    with Server(MODEL, *flags, "--prefix-cache", "off") as server:
        print(json.dumps(measure(Client(server.url))))


if __name__ == "__main__":
    main()
