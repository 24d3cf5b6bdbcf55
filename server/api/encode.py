"""
Answers as JSON: no NaN, no Infinity, and no piece of a large one that would hold up the event loop.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator
from typing import Any

MINUS_INFINITY = -9999.0  # what a log-probability of minus infinity is called in JSON
PART_BYTES = 65536
LARGE = 4096  # scalars that are encoded in one go: about a millisecond


def finite(logprob: float) -> float:
    return MINUS_INFINITY if logprob == -math.inf else logprob


def dumps(value: object) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def weight(value: object) -> int:
    """How many scalars a value holds, containers counted as one more."""
    if isinstance(value, dict):
        return 1 + sum(map(weight, value.values()))
    if isinstance(value, list):
        return 1 + (sum(map(weight, value)) if holds_containers(value) else len(value))
    return 1


def holds_containers(items: list[Any]) -> bool:
    return bool(items) and isinstance(items[0], (dict, list))


def encode(value: object) -> Iterator[str]:
    """
    The JSON of a value in parts. Each is one call of the C encoder, which keeps the interpreter
    lock: between two of them another thread may run.
    """
    if weight(value) <= LARGE:
        yield dumps(value)
    elif isinstance(value, dict):
        for i, (key, item) in enumerate(value.items()):
            yield f"{',' if i else '{'}{dumps(key)}:"
            yield from encode(item)
        yield "}"
    elif isinstance(value, list):
        yield from encode_list(value)


def encode_list(items: list[Any]) -> Iterator[str]:
    """A list of containers by its items, one of scalars by slices."""
    if holds_containers(items):
        for i, item in enumerate(items):
            yield "," if i else "["
            yield from encode(item)
    else:
        for start in range(0, len(items), LARGE):
            yield f"{',' if start else '['}{dumps(items[start : start + LARGE])[1:-1]}"
    yield "]"


def encode_bytes(value: object) -> list[bytes]:
    """Parts of some kilobytes each."""
    parts, gathered = [], 0
    joined = io.StringIO()
    for part in encode(value):
        gathered += joined.write(part)
        if gathered >= PART_BYTES:
            parts.append(joined.getvalue().encode())
            joined, gathered = io.StringIO(), 0
    return [*parts, joined.getvalue().encode()]
