"""
Grammars in the server: checked before a request is taken, asked for a mask at each of its steps.

The grammar library runs in child processes, so that a mask is computed while the model runs:
`mask` starts it, and what it gives back waits for it. There are three children, each with a thread
that talks to it, so that nobody's grammar holds up another's answer:

* one checks, and compiles at its leisure: what a client sends is seen there first;
* one has the masks of grammars that were quick to compile, which are nearly all;
* one has those of the others, which hold up each other alone.

A grammar is compiled where its masks will be before its request is taken. A mask that takes too
long is the end of its sequence and of its grammar, which is refused from then on.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from threading import Lock
from typing import Any

from server.confined import Answer, Confined, Json, Overrun
from server.constrain.grammar import Grammar
from server.errors import InvalidGrammar, ServeError
from server.text.tokenizer import TextTokenizer

MODULE = "server.constrain.process"
# Of processor time:
MAX_SECONDS = 1.0  # to compile a grammar and to find its first mask
QUICK_SECONDS = 0.1  # the same, of one that may share a child with other quick ones
MASK_SECONDS = 0.25  # for any other mask
TOO_SLOW = f"a step takes more than {MASK_SECONDS:g} s of processor time"
MAX_MEMORY = 256 << 20  # bytes, of all grammars of a child together
MAX_KNOWN = 256  # verdicts that are kept


@dataclass(frozen=True, slots=True)
class Verdict:
    error: str | None
    is_quick: bool = True


class Lane:
    """A child, and the one thread that talks to it. Nothing is started before the first call."""

    def __init__(self, name: str, confine: Callable[[], Confined]) -> None:
        self.thread = ThreadPoolExecutor(1, name)
        self._confine = confine
        self._confined: Confined | None = None

    def call(self, request: Json, cpu_seconds: float) -> Answer:
        """For the one thread. Raises Overrun."""
        if self._confined is None:
            self._confined = self._confine()
        request = request | {"cpu_seconds": cpu_seconds}
        try:
            return self._confined.call(request)
        except Overrun as overrun:
            if overrun.is_timeout:
                raise
            return self._confined.call(request)  # earlier grammars may have used up the memory

    def compile(self, grammar: Grammar) -> None:
        """Should this fail, the grammar's first mask will, and is answered for."""
        with suppress(Overrun):
            self.call({"do": "compile", **spelled(grammar)}, MAX_SECONDS)

    def close(self) -> None:
        self.thread.shutdown()
        if self._confined is not None:
            self._confined.close()


class Grammars:
    def __init__(self, tokenizer: TextTokenizer, stop_ids: Sequence[int]) -> None:
        self._tokenizer, self.stop_ids = tokenizer, tuple(stop_ids)
        self._known: OrderedDict[Grammar, Verdict] = OrderedDict()
        self._noting = Lock()
        self._checks = Lane("grammar-checks", self._confine)
        self._quick = Lane("quick-grammars", self._confine)
        self._slow = Lane("slow-grammars", self._confine)
        self.ids = count()

    async def check(self, grammar: Grammar) -> CheckedGrammar:
        """Raises InvalidGrammar."""
        loop = asyncio.get_running_loop()
        verdict = self._known.get(grammar)
        if verdict is None:
            verdict = await loop.run_in_executor(self._checks.thread, self._verdict, grammar)
        if verdict.error is not None:
            raise InvalidGrammar(f"{grammar.param}: {verdict.error}", grammar.param)
        lane = self._quick if verdict.is_quick else self._slow
        await loop.run_in_executor(lane.thread, lane.compile, grammar)
        return CheckedGrammar(self, grammar, lane)

    def refuse(self, grammar: Grammar, error: str) -> None:
        """From now on."""
        self._note(grammar, Verdict(error))

    def mask_of_ends(self) -> bytes:
        bits = bytearray(-(-self._tokenizer.vocab_size // 8))
        for token in self.stop_ids:
            bits[token // 8] |= 1 << token % 8
        return bytes(bits)

    def close(self) -> None:
        for lane in (self._checks, self._quick, self._slow):
            lane.close()

    def _confine(self) -> Confined:
        tokens = [self._tokenizer.token_bytes(i) for i in range(self._tokenizer.vocab_size)]
        setup = {
            "sizes": [len(token) for token in tokens],
            "special": sorted(self._tokenizer.special_ids),
            "eos": list(self.stop_ids),
        }
        data = b"".join(tokens)
        return Confined(MODULE, setup, data, cpu_seconds=MAX_SECONDS, memory=MAX_MEMORY)

    def _verdict(self, grammar: Grammar) -> Verdict:
        found = self._known.get(grammar) or self._ask(grammar)
        self._note(grammar, found)
        return found

    def _note(self, grammar: Grammar, verdict: Verdict) -> None:
        with self._noting:
            self._known[grammar] = verdict
            self._known.move_to_end(grammar)
            if len(self._known) > MAX_KNOWN:
                self._known.popitem(last=False)

    def _ask(self, grammar: Grammar) -> Verdict:
        try:
            answer, _ = self._checks.call({"do": "check", **spelled(grammar)}, MAX_SECONDS)
        except Overrun:
            return Verdict(
                f"too complex: compiling it takes more than {MAX_SECONDS:g} s of processor time or "
                f"{MAX_MEMORY >> 20} MiB"
            )
        if answer["error"] is None and answer["mask_seconds"] > MASK_SECONDS:
            return Verdict(f"too complex: {TOO_SLOW}")
        return Verdict(answer["error"], answer["seconds"] + answer["mask_seconds"] < QUICK_SECONDS)


def spelled(grammar: Grammar) -> dict[str, Any]:
    return {"kind": grammar.kind, "source": grammar.source}


@dataclass(frozen=True, slots=True)
class CheckedGrammar:
    grammars: Grammars
    grammar: Grammar
    lane: Lane

    def constraint(self) -> GrammarConstraint:
        """For one sequence."""
        return GrammarConstraint(self)


class GrammarConstraint:
    """One sequence's way through its grammar. The engine's thread calls it, a step at a time."""

    def __init__(self, checked: CheckedGrammar) -> None:
        self._grammars, self._grammar, self._lane = checked.grammars, checked.grammar, checked.lane
        self._id = next(self._grammars.ids)
        self._num_sent = 0
        self.failure: ServeError | None = None

    def mask(self, output: Sequence[int]) -> Callable[[], bytes]:
        """Starts computing what may follow `output`; a failure allows the end alone."""
        return self._lane.thread.submit(self._mask, tuple(output)).result

    def close(self) -> None:
        self._lane.thread.submit(self._close)

    def _mask(self, output: tuple[int, ...]) -> bytes:
        if self.failure is None:
            try:
                return self._ask(output)
            except Overrun:
                self._grammars.refuse(self._grammar, f"too complex: {TOO_SLOW}")
                self._fail(TOO_SLOW)
        return self._grammars.mask_of_ends()

    def _ask(self, output: tuple[int, ...]) -> bytes:
        answer, bits = self._request(output, self._num_sent)
        if answer.get("is_unknown"):  # the child is new, and this one's grammar is not yet there
            self._lane.compile(self._grammar)
            answer, bits = self._request(output, 0)
        self._num_sent = len(output)
        if answer["error"] is not None:
            self._fail(answer["error"].removesuffix("<non-verbose/>").strip())
            return self._grammars.mask_of_ends()
        return bits

    def _request(self, output: tuple[int, ...], have: int) -> Answer:
        request: Json = {"do": "mask", "id": self._id, "have": have, "new": output[have:]}
        if not have:
            request |= spelled(self._grammar)
        return self._lane.call(request, MASK_SECONDS)

    def _fail(self, reason: str) -> None:
        param = self._grammar.param
        self.failure = InvalidGrammar(f"{param} is too complex: {reason}", param)

    def _close(self) -> None:
        with suppress(Overrun):  # a child that has died knows nothing of it
            self._lane.call({"do": "close", "id": self._id}, MASK_SECONDS)
