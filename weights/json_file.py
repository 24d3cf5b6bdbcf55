"""Small JSON files of a checkpoint folder: bounded, and one readable error for any fault."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from weights.checkpoint import CheckpointError

MAX_BYTES = (
    64 << 20
)  # a sharded index of the largest models is a few; tokenizer.json is not read here


def read_text(path: Path, max_bytes: int = MAX_BYTES) -> str:
    try:
        if (size := path.stat().st_size) > max_bytes:
            raise CheckpointError(f"{path.name} is {size} bytes; at most {max_bytes} are read.")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path.name} is not UTF-8 (byte {error.start}).") from error


def read_object(path: Path, *, is_required: bool = True) -> dict[str, Any]:
    """The object in a JSON file; {} when a file that may be absent is."""
    if not is_required and not path.exists():
        return {}
    return parse_object(read_text(path), path.name)


def parse_object(text: str | bytes, name: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    # RecursionError: nested deeper than the parser goes. ValueError covers a number of too many
    # digits.
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deep" if isinstance(error, RecursionError) else str(error)
        raise CheckpointError(f"{name} is not valid JSON: {reason[:200]}.") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{name} must hold a JSON object, not {type(value).__name__}.")
    return value
