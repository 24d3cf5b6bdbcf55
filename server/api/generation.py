"""
One generator of events for every answer that is generated, streamed or not, in either dialect.

A `Plan` says what to run, `Generation.deltas` runs it and says what is new, a step at a time.
"""

from __future__ import annotations

import hashlib
import secrets
import struct
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from model.step import Ask, Report, Sampling, Score
from server.constrain.masks import CheckedGrammar
from server.engine.engine import Engine
from server.engine.request import Ending, Request, Update
from server.errors import ServeError, ShuttingDown
from server.text.detokenize import Detokenizer
from server.text.stop import StopFinder
from server.text.tokenizer import TextTokenizer

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Plan:
    """
    What a call asks for, every bound checked. Choices are prompt-major: all n of the first prompt
    first.
    """

    id: str
    prompts: Sequence[tuple[int, ...]]
    max_tokens: Sequence[int]  # one a prompt
    sampling: Sampling  # its seed is each choice's own
    seed: int | None
    n: int = 1
    ask: Ask | None = None
    prompt_ask: Ask | None = None
    stops: tuple[str, ...] = ()
    is_stop_included: bool = False
    stop_token_ids: frozenset[int] = frozenset()  # the client's
    end_ids: frozenset[int] = frozenset()  # the model's, unless it is to go on past them
    min_tokens: int = 0
    cache_salt: str = ""
    timeout: float | None = None
    grammar: CheckedGrammar | None = None

    @property
    def num_choices(self) -> int:
        return len(self.prompts) * self.n

    def requests(self) -> list[Request]:
        return [self._request(p, i) for p in range(len(self.prompts)) for i in range(self.n)]

    def _request(self, p: int, i: int) -> Request:
        return Request(
            id=f"{self.id}-{p * self.n + i}",
            prompt=self.prompts[p],
            max_tokens=self.max_tokens[p],
            sampling=replace(self.sampling, seed=choice_seed(self.seed, i)),
            ask=self.ask,
            prompt_ask=self.prompt_ask if i == 0 else None,  # a prompt is scored once
            stop_ids=self.stop_token_ids | self.end_ids,
            min_tokens=self.min_tokens,
            cache_salt=self.cache_salt,
            timeout=self.timeout,
            constraint=None if self.grammar is None else self.grammar.constraint(),
        )


def choice_seed(seed: int | None, i: int) -> int:
    """
    Choice i of a prompt: the seed itself for the first, so that n=1 is the first of n; none is
    random.
    """
    if seed is None:
        return secrets.randbits(63)
    if i == 0:
        return seed
    digest = hashlib.blake2b(struct.pack("<qq", seed, i), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


@dataclass(frozen=True, slots=True)
class Drawn:
    token: int
    score: Score | None  # with the report, where the plan asks
    report: Report | None
    offset: (
        int  # characters of the text before this token; past the text's end for what a stop cut off
    )

    @property
    def told(self) -> Score:
        """Its score, where the plan asks for one."""
        assert self.score is not None
        return self.score


@dataclass(frozen=True, slots=True)
class Delta:
    """What is new in one choice. The last of a choice has a finish_reason."""

    index: int
    text: str
    drawn: tuple[Drawn, ...]
    finish_reason: FinishReason | None = None
    stop_reason: str | int | None = (
        None  # the stop string, or the client's stop id; None for the model's own end
    )


class Choice:
    """One sequence's tokens as text that may be shown."""

    def __init__(self, index: int, plan: Plan, tokenizer: TextTokenizer) -> None:
        self.index, self.plan, self.tokenizer = index, plan, tokenizer
        self.is_finished = False
        self.num_tokens = 0
        self._num_characters = 0
        self._detokenizer = Detokenizer()
        self._stops = StopFinder(plan.stops, plan.is_stop_included)

    def take(self, update: Update) -> Delta | None:
        """
        None where there is nothing to tell: the ending of what a stop string had already finished.
        """
        if self.is_finished:
            return None
        stop_id = update.ending.stop_id if update.ending else None
        text, drawn = "", []
        for i, sampled in enumerate(update.drawn):
            told = Drawn(sampled.token, sampled.score, sampled.report, self._num_characters)
            drawn.append(told)
            is_end = stop_id is not None and i == len(update.drawn) - 1
            released, stop = self._push(sampled.token, is_end)
            text += released
            if stop is not None:
                return self._finish(text, drawn, "stop", stop)
        if update.ending is None:
            return Delta(self.index, text, tuple(drawn)) if drawn else None
        return self._end(text, drawn, update.ending)

    def _push(self, token: int, is_end: bool) -> tuple[str, str | None]:
        """A token that ends the text is part of it only where the stop is asked for."""
        self.num_tokens += 1
        is_shown = self.plan.is_stop_included or not is_end
        return self._show(
            self._detokenizer.push(self.tokenizer.visible_bytes(token)) if is_shown else ""
        )

    def _show(self, text: str) -> tuple[str, str | None]:
        self._num_characters += len(text)
        return self._stops.push(text, is_armed=self.num_tokens >= self.plan.min_tokens)

    def _end(self, text: str, drawn: list[Drawn], ending: Ending) -> Delta:
        if ending.reason not in ("stop", "length"):
            raise ending.error or ShuttingDown("the server stopped before this was finished")
        released, stop = self._show(self._detokenizer.finish())
        if stop is not None:
            return self._finish(text + released, drawn, "stop", stop)
        text += released + self._stops.finish()
        if ending.reason == "length":
            return self._finish(text, drawn, "length", None)
        is_clients = ending.stop_id in self.plan.stop_token_ids
        return self._finish(text, drawn, "stop", ending.stop_id if is_clients else None)

    def _finish(
        self, text: str, drawn: list[Drawn], reason: FinishReason, stop: str | int | None
    ) -> Delta:
        self.is_finished = True
        return Delta(self.index, text, tuple(drawn), reason, stop)


@dataclass(slots=True)
class Generation:
    """A plan being run, and what is known of it so far."""

    plan: Plan
    tokenizer: TextTokenizer
    endings: dict[int, Ending] = field(default_factory=dict)
    scored: dict[int, list[tuple[Score, Report | None]]] = field(default_factory=dict)  # by choice
    choices: list[Choice] = field(default_factory=list)

    async def deltas(self, engine: Engine) -> AsyncGenerator[Delta, None]:
        """Leaving it cancels what has not ended. Raises ServeError when a sequence failed."""
        requests = self.plan.requests()
        self.choices = [Choice(i, self.plan, self.tokenizer) for i in range(len(requests))]
        async with engine.submit(requests) as stream:
            async for index, update in stream:
                self._note(index, update)
                delta = self.choices[index].take(update)
                if delta is None:
                    continue
                if delta.finish_reason is not None and update.ending is None:
                    stream.cancel(index)
                yield delta

    def _note(self, index: int, update: Update) -> None:
        if update.scored:
            reports = update.scored_reports or (None,) * len(update.scored)
            self.scored.setdefault(index, []).extend(zip(update.scored, reports, strict=True))
        if update.ending is not None:
            if isinstance(update.ending.error, ServeError):
                raise update.ending.error
            self.endings[index] = update.ending

    @property
    def num_prompt_tokens(self) -> int:
        """A prompt is counted once, however many choices it has."""
        return sum(map(len, self.plan.prompts))

    @property
    def num_drawn(self) -> int:
        return sum(choice.num_tokens for choice in self.choices)

    @property
    def num_cached(self) -> int:
        """Of the first choice of each prompt: the others always find the prompt there."""
        return sum(
            self.endings[p * self.plan.n].cached_tokens for p in range(len(self.plan.prompts))
        )
