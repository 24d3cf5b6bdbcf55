"""
The child process that compiles grammars and says which tokens may follow (llguidance). A grammar
may be hostile: whatever it costs, it costs here.

Requests: `check` a grammar, `compile` one that was checked, the `mask` of a sequence that follows
one, `close` a sequence. A sequence that is not known here - the process is new - is answered so,
and sent again whole.
"""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

from server.confined import Answer, Json, work
from server.constrain.schemas import fault, subschemas, worded

MAX_COMPILED = 64
MAX_LOCATED = 512  # parts of a refused schema that are tried, to say which of them is at fault
LIMITS = LLParserLimits(initial_lexer_fuel=300_000, verbose_errors=False)
# On one line, as json.dumps writes it: where white space is free, a small model may write nothing
# else until its tokens are used up.
JSON_OPTIONS: Any = {
    "whitespace_flexible": False,
    "whitespace_pattern": None,
    "item_separator": ", ",
    "key_separator": ": ",
    "coerce_one_of": False,
    "lenient": False,
}
# Its words that nobody outside of it can read.
WORDS = {"NoExtensionBias": "nothing can satisfy it: it refers to itself without an end"}


class Vocabulary:
    """What the library asks of a tokenizer. Text that a grammar forces is tokenised by the longest
    match: any tokens that spell it will do.
    """

    bos_token_id = None

    def __init__(self, tokens: Sequence[bytes], special: Sequence[int], eos: int) -> None:
        self.tokens, self.special_token_ids, self.eos_token_id = tokens, special, eos
        hidden = {*special}
        self._ids = {own: i for i, own in enumerate(tokens) if own and i not in hidden}
        self._longest = max(map(len, self._ids), default=1)

    def __call__(self, text: bytes) -> list[int]:
        found: list[int] = []
        start = 0
        while start < len(text):
            sizes = range(min(self._longest, len(text) - start), 0, -1)
            spelled = (text[start : start + size] for size in sizes)
            own = next((piece for piece in spelled if piece in self._ids), None)
            if own is None:  # a byte that no token spells
                return found
            found.append(self._ids[own])
            start += len(own)
        return found


class Matchers:
    def __init__(self, setup: Json, data: bytes) -> None:
        ends = [0, *accumulate(setup["sizes"])]
        tokens = [data[start:end] for start, end in pairwise(ends)]
        vocabulary = Vocabulary(tokens, setup["special"], setup["eos"][0])
        self.tokenizer = LLTokenizer(
            TokenizerWrapper(vocabulary), n_vocab=len(tokens), eos_token=setup["eos"]
        )
        self.compiled: OrderedDict[tuple[str, str], LLMatcher] = OrderedDict()
        self.live: dict[int, LLMatcher] = {}

    def answer(self, request: Json) -> Answer:
        if request["do"] == "check":
            return self.check(request["kind"], request["source"]), b""
        if request["do"] == "compile":
            self.compile(request["kind"], request["source"])
            return {}, b""
        if request["do"] == "close":
            self.live.pop(request["id"], None)
            return {}, b""
        return self.mask(request)

    def check(self, kind: str, source: str) -> Json:
        """
        What is wrong with a grammar, and the processor time that compiling it and its first mask
        took. That mask is part of the check: some bombs go off there.
        """
        began = time.process_time()
        matcher = self.compile(kind, source).deep_copy()
        compiled = time.process_time()
        if not matcher.is_error():
            matcher.compute_bitmask()
        seconds = {"seconds": compiled - began, "mask_seconds": time.process_time() - compiled}
        error = error_of(matcher)
        if kind == "json_schema":
            error = self.why_refused(json.loads(source), error)
        return {"error": error or None, **seconds}

    def why_refused(self, schema: Json, error: str) -> str:
        """With where it is; empty for a schema that is followed exactly."""
        reason = fault(schema)
        if reason is None and error:
            return f"{self.locate(schema, error)}{error}"
        return reason or ""

    def compile(self, kind: str, source: str) -> LLMatcher:
        key = (kind, source)
        if key not in self.compiled:
            try:
                grammar = translate(kind, source)
            except ValueError as error:
                grammar = f"invalid: {error}"
            self.compiled[key] = LLMatcher(self.tokenizer, grammar, log_level=0, limits=LIMITS)
            if len(self.compiled) > MAX_COMPILED:
                self.compiled.popitem(last=False)
        self.compiled.move_to_end(key)
        return self.compiled[key]

    def locate(self, schema: Json, error: str) -> str:
        """The innermost part of a schema that is refused with the same words by itself."""
        parts: list[tuple[str, object]] = [("#", schema)]
        found, tried = "#", set[int]()
        while parts and len(tried) < MAX_LOCATED:
            place, part = parts.pop(0)
            if id(part) in tried:  # it refers to itself
                continue
            tried.add(id(part))
            if place != "#" and not self.is_refused(schema, part, error):
                continue
            found, parts = place, list(subschemas(schema, place, part))
        return f"at {found}: "

    def is_refused(self, root: Json, part: object, error: str) -> bool:
        if not isinstance(part, dict):
            return False
        shared = {name: root[name] for name in ("$defs", "definitions") if name in root}
        text = json.dumps(part | shared)
        matcher = LLMatcher(
            self.tokenizer, translate("json_schema", text), log_level=0, limits=LIMITS
        )
        return matcher.is_error() and error_of(matcher) == error

    def mask(self, request: Json) -> Answer:
        if not request["have"]:
            self.live[request["id"]] = self.compile(request["kind"], request["source"]).deep_copy()
        if request["id"] not in self.live:
            return {"is_unknown": True}, b""
        matcher = self.live[request["id"]]
        matcher.consume_tokens(request["new"])
        bits = matcher.compute_bitmask()
        return {"error": str(matcher.get_error()) or None}, bits


def error_of(matcher: LLMatcher) -> str:
    error = str(matcher.get_error()).removesuffix("<non-verbose/>").strip()
    return WORDS.get(error, error)


def translate(kind: str, source: str) -> str:
    if kind == "regex":
        return LLMatcher.grammar_from_regex(source)
    if kind == "lark":
        return LLMatcher.grammar_from_lark(source)
    schema = json.dumps(worded(json.loads(source)), ensure_ascii=False)
    return LLMatcher.grammar_from_json_schema(schema, overrides=JSON_OPTIONS)


if __name__ == "__main__":
    work(lambda setup, data: Matchers(setup, data).answer)
