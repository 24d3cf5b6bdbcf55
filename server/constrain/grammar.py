"""
What an answer may be: one of the three languages that the grammar library reads. Text only, nothing
is compiled here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

MAX_GRAMMAR_BYTES = 65536


@dataclass(frozen=True, slots=True)
class Grammar:
    kind: Literal["json_schema", "regex", "lark"]
    source: str  # the schema as JSON, the expression, or the Lark grammar
    param: str  # the request's field that it came from


def json_schema(schema: object, param: str) -> Grammar:
    """The keys stay in the client's order: that is the order in which properties are written."""
    return Grammar("json_schema", json.dumps(schema, ensure_ascii=False), param)


def choice(texts: Sequence[str], param: str) -> Grammar:
    """Exactly one of these. Lark spells a string as JSON does, but for a raw DEL."""
    strings = (json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f") for text in texts)
    spelled = " | ".join(strings)
    return Grammar("lark", f"start: {spelled}", param)
