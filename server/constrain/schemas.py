"""
JSON schemas as the grammar library is given them: what it would follow only nearly is refused here,
or said in its words.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

Part = tuple[str, object]  # with its JSON pointer (RFC 6901)

SUBSCHEMAS = ("items", "additionalProperties", "not", "if", "then", "else", "contains")
SUBSCHEMA_LISTS = ("anyOf", "allOf", "oneOf", "prefixItems", "items")
SUBSCHEMA_TABLES = ("properties", "patternProperties", "$defs", "definitions")
BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
MAX_INTEGER = 2**63 - 1  # of the library's; a greater bound is this one

# RFC 3339's calendar, of which the library knows the lengths of months alone: no 29 February but in
# leap years, and no year 0, which few parsers take.
YEAR = r"(?:\d{3}[1-9]|\d{2}[1-9]\d|\d[1-9]\d{2}|[1-9]\d{3})"
LEAP_YEAR = r"(?:\d{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"
CALENDAR = f"^(?:{YEAR}-(?:0[13-9]|1[0-2])|{YEAR}-02-(?:[01]|2[0-8])|{LEAP_YEAR}-02-29)"
DATES = ("date", "date-time")
# An escape, which may be of a bracket, or the beginning of a negated class.
NEGATED_CLASS = re.compile(r"(\\.)|\[\^(?!\])(-?)", re.DOTALL)


def subschemas(root: object, place: str, schema: object) -> Iterator[Part]:
    """Those that a schema is made of, and the one that it refers to."""
    if not isinstance(schema, dict):
        return
    for name in SUBSCHEMAS:
        if name in schema and not isinstance(schema[name], list):
            yield f"{place}/{name}", schema[name]
    for name in SUBSCHEMA_LISTS:
        own = schema.get(name)
        for i, part in enumerate(own if isinstance(own, list) else ()):
            yield f"{place}/{name}/{i}", part
    for name in SUBSCHEMA_TABLES:
        own = schema.get(name)
        for key, part in own.items() if isinstance(own, dict) else ():
            yield f"{place}/{name}/{key.replace('~', '~0').replace('/', '~1')}", part
    yield from referred(root, schema.get("$ref"))


def referred(root: object, reference: object) -> Iterator[Part]:
    if not isinstance(reference, str) or not reference.startswith("#/"):
        return
    part = root
    for name in reference.removeprefix("#/").split("/"):
        key = name.replace("~1", "/").replace("~0", "~")
        if not isinstance(part, dict) or key not in part:
            return
        part = part[key]
    yield reference, part


def parts(root: object) -> Iterator[Part]:
    """Every one once, the outer before the inner."""
    waiting, seen = deque([("#", root)]), set[int]()
    while waiting:
        place, part = waiting.popleft()
        if id(part) not in seen:
            yield place, part
            waiting.extend(subschemas(root, place, part))
        if isinstance(part, dict):
            seen.add(id(part))


def fault(root: object) -> str | None:
    """Where and why the library would follow a schema only nearly, or read what is none."""
    for place, part in parts(root):
        if not isinstance(part, dict | bool):
            return f"at {place}: a schema must be an object or a boolean"
        reason = fault_of(part) if isinstance(part, dict) else None
        if reason is not None:
            return f"at {place}: {reason}"
    return None


def fault_of(schema: dict[str, Any]) -> str | None:
    for name in SUBSCHEMA_TABLES:
        if not isinstance(schema.get(name, {}), dict):
            return f"{name} must be an object"
    divisor = schema.get("multipleOf")
    if isinstance(divisor, int | float) and divisor <= 0:
        return f"multipleOf is {divisor}; it must be above 0"
    return fault_of_counts(schema) or fault_of_numbers(schema)


def fault_of_counts(schema: dict[str, Any]) -> str | None:
    """A name that comes twice is one property to readers of JSON, and two to the library."""
    least = schema.get("minProperties")
    required = schema.get("required")
    num_required = len(set(map(str, required))) if isinstance(required, list) else 0
    is_closed = schema.get("additionalProperties") is False and not schema.get("patternProperties")
    if not isinstance(least, int) or least <= max(1, num_required) or is_closed:
        return None
    return (
        f"minProperties is {least}, but only {num_required} are required and the others' names may "
        "come twice; require as many, or allow none but those of properties"
    )


def fault_of_numbers(schema: dict[str, Any]) -> str | None:
    values = [*numbers(schema.get("const")), *numbers(schema.get("enum"))]
    bounds = [schema[name] for name in BOUNDS if isinstance(schema.get(name), int)]
    wrong = [value for value in values if not is_spelled_exactly(value)]
    wrong += [value for value in bounds if abs(value) < MAX_INTEGER and float(value) != value]
    if not wrong:
        return None
    return f"{str(wrong[0])[:40]} cannot be followed to the digit: a double does not hold it"


def numbers(value: object) -> Iterator[int | float]:
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict | list):
            waiting += part.values() if isinstance(part, dict) else part
        elif isinstance(part, int | float):
            yield part


def is_spelled_exactly(value: float) -> bool:
    """Within its integers the library writes a double's own digits, beyond them its shortest."""
    if abs(value) <= MAX_INTEGER:
        return float(value) == value
    try:
        return Decimal(repr(float(value))) == Decimal(value)
    except OverflowError:
        return False


def worded(root: object) -> object:
    """Changes the schema itself: without what says nothing, and with what formats do not say."""
    for _, part in list(parts(root)):
        if isinstance(part, dict):
            reword(part)
    return root


def reword(schema: dict[str, Any]) -> None:
    if isinstance(schema.get("pattern"), str):
        schema["pattern"] = without_nul(schema["pattern"])
    if isinstance(schema.get("patternProperties"), dict):
        own = schema["patternProperties"].items()
        schema["patternProperties"] = {without_nul(pattern): part for pattern, part in own}
    if schema.get("uniqueItems") is False:
        del schema["uniqueItems"]
    if schema.get("propertyNames") in (True, {}, {"type": "string"}):
        schema.pop("propertyNames", None)
    if schema.get("format") in DATES and isinstance(schema.get("allOf", []), list):
        schema["allOf"] = [*schema.get("allOf", []), {"pattern": CALENDAR}]


def without_nul(pattern: str) -> str:
    """
    Of a class that has every control character the library thinks that it has every escape of a
    JSON string: `[^"]` would match `\\"`. Without NUL it is read rightly: `[^\\x00"]`.
    """
    return NEGATED_CLASS.sub(
        lambda found: found[1] or "[^\\x00" + found[2].replace("-", "\\-"), pattern
    )
