"""
What a grammar costs: 16 streams that follow a regular expression or a JSON schema, over 16 free
ones, in time a token. The last line is one line of JSON.
"""

from __future__ import annotations

import json
import os
import statistics
from typing import Any

from benchmarks.load import random_prompts, together
from benchmarks.process import Server

STREAMS, TOKENS, PAIRS = 16, 32, 5
ITEM = {"type": "array", "minItems": 40, "items": {"type": "integer", "minimum": 0, "maximum": 999}}
FORMATS: dict[str, dict[str, Any]] = {
    "regex": {"type": "regex", "regex": "[a-z ,.]{400}"},
    "json_schema": {"type": "json_schema", "json_schema": {"name": "x", "schema": ITEM}},
}


def seconds(url: str, seed: int, response_format: dict[str, Any] | None) -> float:
    """Each format allows no end within so many tokens."""
    common = {"max_tokens": TOKENS, "temperature": 0.8, "seed": seed}
    more = {"response_format": response_format} if response_format else {"ignore_eos": True}
    bodies = [common | more | {"prompt": prompt} for prompt in random_prompts(STREAMS, 8, seed)]
    took, answers = together(url, bodies)
    assert all(answer["usage"]["completion_tokens"] == TOKENS for answer in answers)
    return took


def main() -> None:
    flags = ("--threads", str(os.cpu_count() or 1), "--kv-cache-tokens", "16384")
    result = {}
    with Server("smollm2-135m-instruct", *flags, "--max-batch", str(STREAMS)) as server:
        for name, response_format in FORMATS.items():
            seconds(server.url, 1, response_format)
            pairs = [
                seconds(server.url, 10 + i, response_format) / seconds(server.url, 50 + i, None)
                for i in range(PAIRS)
            ]
            result[name] = {
                "median": round(statistics.median(pairs), 3),
                "min": round(min(pairs), 3),
                "max": round(max(pairs), 3),
            }
    print(json.dumps({"constrained_over_free": result}))


if __name__ == "__main__":
    main()
