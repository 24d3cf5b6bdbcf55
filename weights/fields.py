"""Typed, bounded reads of a config.json-like dict. A refusal names file, field and value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from weights.checkpoint import CheckpointError, UnsupportedCheckpoint

T = TypeVar("T")
REQUIRED: Final = object()
MAX_COUNT = 1 << 31  # no size of a model that is served from one machine's memory reaches it


def shown(value: object) -> str:
    """The value as an error shows it: one line, not the whole of a hostile one."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."


@dataclass(frozen=True, slots=True)
class Fields:
    raw: Mapping[str, Any]
    source: str  # what an error calls the place these came from

    def has(self, name: str) -> bool:
        """An explicit null is the same as an absent field, in every Hugging Face config."""
        return self.raw.get(name) is not None

    def count(self, name: str, default: object = REQUIRED, maximum: int = MAX_COUNT) -> int:
        """A whole number in [1, maximum]."""
        value = self._value(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= maximum:
            raise self.error(name, f"a whole number from 1 to {maximum}")
        return value

    def positive(self, name: str, default: object = REQUIRED) -> float:
        value = self._value(name, default)
        # Compared as it came: an integer of 400 digits does not fit a float. NaN is not above 0.
        if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= 1e30:
            return float(value)
        raise self.error(name, "a number above 0")

    def flag(self, name: str, default: bool) -> bool:
        value = self._value(name, default)
        if not isinstance(value, bool):
            raise self.error(name, "true or false")
        return value

    def flag_or_none(self, name: str) -> bool | None:
        return self.flag(name, False) if self.has(name) else None

    def choice(self, name: str, table: Mapping[str, T], default: object = REQUIRED) -> T:
        value = self._value(name, default)
        if not isinstance(value, str) or value not in table:
            known = ", ".join(sorted(table))
            raise UnsupportedCheckpoint(
                f"{self.source}: {name} is {shown(value)}; this server knows {known}."
            )
        return table[value]

    def nested(self, name: str) -> Fields | None:
        if not self.has(name):
            return None
        value = self.raw[name]
        if not isinstance(value, Mapping):
            raise self.error(name, "an object")
        return Fields(value, f"{self.source}: {name}")

    def must_be(self, name: str, *allowed: object) -> None:
        """Refuse a setting that this code would silently get wrong. Absent is always allowed."""
        value = self.raw.get(name)
        is_plain = isinstance(value, (str, int, float))  # an array from GGUF has no truth value
        if value is not None and not (is_plain and value in allowed):
            wanted = " or ".join(map(repr, allowed)) or "absent"
            raise UnsupportedCheckpoint(
                f"{self.source}: {name} is {shown(value)}; this server runs it only as {wanted}."
            )

    def error(self, name: str, wanted: str) -> CheckpointError:
        return CheckpointError(
            f"{self.source}: {name} must be {wanted}, not {shown(self.raw.get(name))}."
        )

    def _value(self, name: str, default: object) -> object:
        if self.has(name):
            return self.raw[name]
        if default is REQUIRED:
            raise CheckpointError(f"{self.source}: {name} is missing.")
        return default
