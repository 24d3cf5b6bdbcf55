"""
Grammars in the server: checked before a request is taken, asked for a mask at each of its steps.

The grammar library runs in a child process. One thread talks to it, so that a mask is computed
while the model runs: `mask` starts it, and what it gives back waits for it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import count

from server.confined import Answer, Confined, Json, Overrun
from server.constrain.grammar import Grammar
from server.errors import InvalidGrammar, ServeError
from server.text.tokenizer import TextTokenizer

MODULE = "server.constrain.process"
MAX_SECONDS = 1.0  # of processor time, for one grammar or one mask
MAX_MEMORY = 256 << 20  # bytes, of all grammars together
MAX_KNOWN = 256  # verdicts that are kept


class Grammars:
    def __init__(self, tokenizer: TextTokenizer, stop_ids: Sequence[int]) -> None:
        """Nothing is started before the first grammar comes."""
        self._tokenizer, self.stop_ids = tokenizer, tuple(stop_ids)
        self._confined: Confined | None = None
        self._known: OrderedDict[Grammar, str | None] = OrderedDict()  # what is wrong with each
        self.thread = ThreadPoolExecutor(1, "grammar")
        self.ids = count()

    async def check(self, grammar: Grammar) -> CheckedGrammar:
        """Raises InvalidGrammar."""
        loop = asyncio.get_running_loop()
        error = await loop.run_in_executor(self.thread, self._verdict, grammar)
        if error is not None:
            raise InvalidGrammar(f"{grammar.param}: {error}", grammar.param)
        return CheckedGrammar(self, grammar)

    def mask_of_ends(self) -> bytes:
        bits = bytearray(-(-self._tokenizer.vocab_size // 8))
        for token in self.stop_ids:
            bits[token // 8] |= 1 << token % 8
        return bytes(bits)

    def close(self) -> None:
        self.thread.shutdown()
        if self._confined is not None:
            self._confined.close()

    def call(self, request: Json) -> Answer:
        """For the one thread. Raises Overrun."""
        if self._confined is None:
            self._confined = self._confine()
        try:
            return self._confined.call(request)
        except Overrun as overrun:
            if overrun.is_timeout:
                raise
            return self._confined.call(request)  # earlier grammars may have used up the memory

    def _confine(self) -> Confined:
        tokens = [self._tokenizer.token_bytes(i) for i in range(self._tokenizer.vocab_size)]
        setup = {
            "sizes": [len(token) for token in tokens],
            "special": sorted(self._tokenizer.special_ids),
            "eos": list(self.stop_ids),
        }
        data = b"".join(tokens)
        return Confined(MODULE, setup, data, cpu_seconds=MAX_SECONDS, memory=MAX_MEMORY)

    def _verdict(self, grammar: Grammar) -> str | None:
        if grammar not in self._known:
            self._known[grammar] = self._ask(grammar)
            if len(self._known) > MAX_KNOWN:
                self._known.popitem(last=False)
        self._known.move_to_end(grammar)
        return self._known[grammar]

    def _ask(self, grammar: Grammar) -> str | None:
        request = {"do": "check", "kind": grammar.kind, "source": grammar.source}
        try:
            answer, _ = self.call(request)
        except Overrun:
            return (
                f"too complex: compiling it takes more than {MAX_SECONDS:g} s of processor time or "
                f"{MAX_MEMORY >> 20} MiB"
            )
        error: str | None = answer["error"]
        return error


@dataclass(frozen=True, slots=True)
class CheckedGrammar:
    grammars: Grammars
    grammar: Grammar

    def constraint(self) -> GrammarConstraint:
        """For one sequence."""
        return GrammarConstraint(self.grammars, self.grammar)


class GrammarConstraint:
    """One sequence's way through its grammar. The engine's thread calls it, a step at a time."""

    def __init__(self, grammars: Grammars, grammar: Grammar) -> None:
        self._grammars, self._grammar = grammars, grammar
        self._id = next(grammars.ids)
        self._num_sent = 0
        self.failure: ServeError | None = None

    def mask(self, output: Sequence[int]) -> Callable[[], bytes]:
        """Starts computing what may follow `output`; a failure allows the end alone."""
        return self._grammars.thread.submit(self._mask, tuple(output)).result

    def close(self) -> None:
        self._grammars.thread.submit(self._close)

    def _mask(self, output: tuple[int, ...]) -> bytes:
        if self.failure is None:
            try:
                return self._ask(output)
            except Overrun:
                self._fail(f"a step takes more than {MAX_SECONDS:g} s of processor time")
        return self._grammars.mask_of_ends()

    def _ask(self, output: tuple[int, ...]) -> bytes:
        answer, bits = self._request(output, self._num_sent)
        if answer.get("is_unknown"):
            answer, bits = self._request(output, 0)
        self._num_sent = len(output)
        if answer["error"] is not None:
            self._fail(answer["error"].removesuffix("<non-verbose/>").strip())
            return self._grammars.mask_of_ends()
        return bits

    def _request(self, output: tuple[int, ...], have: int) -> Answer:
        request: Json = {"do": "mask", "id": self._id, "have": have, "new": output[have:]}
        if not have:
            request |= {"kind": self._grammar.kind, "source": self._grammar.source}
        return self._grammars.call(request)

    def _fail(self, reason: str) -> None:
        param = self._grammar.param
        self.failure = InvalidGrammar(f"{param} is too complex: {reason}", param)

    def _close(self) -> None:
        with suppress(Overrun):  # a child that has died knows nothing of it
            self._grammars.call({"do": "close", "id": self._id})
