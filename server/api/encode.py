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
ENCODER = json.JSONEncoder(allow_nan=False, separators=(",", ":"))
LARGE = 4096  # scalars that are encoded in one go: about a millisecond


def finite(logprob: float) -> float:
    return MINUS_INFINITY if logprob == -math.inf else logprob


def dumps(value: object) -> str:
    return ENCODER.encode(value)


def spend(value: object, budget: int) -> int:
    """The budget less one for each scalar and container in a value; stops counting below 0."""
    budget -= 1
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for item in items:
        if budget < 0:
            break
        budget = spend(item, budget) if isinstance(item, (dict, list)) else budget - 1
    return budget


def encode(value: object) -> Iterator[str]:
    """
    The JSON of a value in parts. Each is one call of the C encoder, which keeps the interpreter
    lock: between two of them another thread may run.
    """
    if spend(value, LARGE) >= 0:
        yield dumps(value)
    elif isinstance(value, dict):
        for i, (key, item) in enumerate(value.items()):
            yield f"{',' if i else '{'}{dumps(key)}:"
            yield from encode(item)
        yield "}"
    elif isinstance(value, list):
        for i, part in enumerate(slices(value)):
            yield "," if i else "["
            yield from encode(part[0]) if len(part) == 1 else (dumps(part)[1:-1],)
        yield "]"


def slices(items: list[Any]) -> Iterator[list[Any]]:
    """A list in order, as lists that are encoded in one go; what is too large stands alone."""
    part: list[Any] = []
    left = LARGE
    for item in items:
        left = spend(item, left)
        if part and left < 0:
            yield part
            part, left = [], spend(item, LARGE)
        part.append(item)
    yield part


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
