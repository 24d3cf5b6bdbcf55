"""
POST /v1/completions: from its body to a plan, and from what is generated to OpenAI's older form.

With `echo` a choice begins with its prompt, in text and in log-probabilities. Where several choices
of one prompt are streamed, its scores come with the first of them: the others wait for that.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from model.step import Ask, Score
from server.api.dialect import check_alternatives, head, usage
from server.api.encode import finite
from server.api.generate import Amounts, check_counts, plan_generation
from server.api.generation import Delta, Generation, Plan
from server.api.legacy_logprobs import LegacyLogprobs, extend
from server.api.schemas.fields import TextOrIds
from server.api.schemas.openai import CompletionBody
from server.api.service import ServedModel, Service
from server.api.tokens import Json
from server.api.waves import run_wave
from server.constrain.masks import CheckedGrammar
from server.engine.engine import Engine
from server.engine.request import Request
from server.text.detokenize import Detokenizer
from server.text.tokenizer import TextTokenizer

Ids = tuple[int, ...]


def amounts_of(body: CompletionBody) -> Amounts:
    """The best of several are chosen among all of them."""
    scored = [body.prompt_logprobs, body.logprobs if body.echo else None]
    return Amounts(
        n=body.best_of or body.n,
        max_tokens=body.max_tokens,
        is_bounded="max_tokens" in body.model_fields_set,
        logprobs=body.logprobs,
        prompt_logprobs=max((count for count in scored if count is not None), default=None),
    )


def plan_completion(
    body: CompletionBody,
    prompts: Sequence[Ids],
    model: ServedModel,
    service: Service,
    call_id: str,
    salt: str,
    grammar: CheckedGrammar | None,
) -> Plan:
    for name in ("logprobs", "prompt_logprobs"):
        check_alternatives(name, getattr(body, name), service.settings, model.vocab_size)
    if body.best_of not in (None, body.n):  # by its own name: the plan knows of n alone
        check_counts(body.best_of, len(prompts), service.settings, "best_of")
    plan = plan_generation(
        body, amounts_of(body), prompts, model, service.settings, call_id, salt, grammar
    )
    is_ranked = plan.n > body.n  # best_of, by log-probabilities
    return replace(plan, ask=plan.ask or Ask()) if is_ranked else plan


@dataclass(frozen=True, slots=True)
class Echo:
    """A prompt as text, and where in it each of its tokens begins."""

    text: str
    offsets: Sequence[int]


async def echoes_of(
    body: CompletionBody, prompts: Sequence[Ids], model: ServedModel, service: Service
) -> list[Echo]:
    if not body.echo:
        return []
    given = zip(body.prompt, prompts, strict=True)
    return [await service.tokenize(echo_of, body, prompt, ids, model) for prompt, ids in given]


def echo_of(body: CompletionBody, prompt: TextOrIds, ids: Ids, model: ServedModel) -> Echo:
    """A text is given back as it came; of ids, special tokens are spelled out."""
    if isinstance(prompt, str):
        pieces = model.tokenizer.pieces(prompt, body.add_special_tokens, body.parse_special)
        return Echo(prompt, [piece.start for piece in pieces] or [0])
    return echo_of_ids(ids, model.tokenizer)


def echo_of_ids(ids: Ids, tokenizer: TextTokenizer) -> Echo:
    text, offsets, detokenizer = "", [], Detokenizer()
    for token in ids:
        offsets.append(len(text))
        text += detokenizer.push(tokenizer.token_bytes(token))
    return Echo(text + detokenizer.finish(), offsets)


class CompletionAnswer:
    def __init__(
        self, body: CompletionBody, plan: Plan, model: ServedModel, echoes: Sequence[Echo]
    ) -> None:
        self.body, self.plan, self.model, self.echoes = body, plan, model, echoes
        self.run = Generation(plan, model.tokenizer)
        self.head = head(plan.id, "text_completion", model)
        self.legacy = LegacyLogprobs(
            model.tokenizer, body.logprobs or 0, body.return_tokens_as_token_ids
        )
        self.sums = [0.0] * plan.num_choices  # of each choice's log-probabilities
        self.outputs: list[list[int]] = [[] for _ in self.sums]

    async def whole(self) -> Json:
        if not self._is_ranked_anew:
            return await self._whole()
        with self.model.engine.call():  # what ranks them is a second part of it
            return await self._whole()

    @property
    def _is_ranked_anew(self) -> bool:
        """The best are the likeliest by the model itself, whatever `logprobs` are to tell."""
        is_processed = self.plan.ask is not None and self.plan.ask.is_processed
        return self.plan.n > self.body.n and is_processed

    async def _whole(self) -> Json:
        indices = range(self.plan.num_choices)
        told = [self._choice(Delta(i, "", ())) for i in indices]
        async with aclosing(self.run.deltas(self.model.engine)) as deltas:
            async for delta in deltas:
                add(told[delta.index], self._choice(delta))
        if self._is_ranked_anew:
            self.sums = await raw_sums(self.plan, self.outputs, self.model.engine)
        best = [i for p in range(len(self.plan.prompts)) for i in self._best_of(p)]
        choices = [self._begun(i, told[i]) | {"index": rank} for rank, i in enumerate(best)]
        return {**self.head, "choices": choices, "usage": usage(self.run)}

    async def events(self) -> AsyncGenerator[Json, None]:
        more = {"usage": None} if self.body.has_usage else {}
        begun: set[int] = set()
        async with aclosing(self._in_order()) as deltas:
            async for delta in deltas:
                choice = self._choice(delta)
                if delta.index not in begun:
                    begun.add(delta.index)
                    choice = self._begun(delta.index, choice)
                yield {**self.head, "choices": [choice], **more}
        if self.body.has_usage:
            yield {**self.head, "choices": [], "usage": usage(self.run)}

    async def _in_order(self) -> AsyncGenerator[Delta, None]:
        """None of a choice before its prompt's scores are known, where they are told."""
        held: list[Delta] = []
        async with aclosing(self.run.deltas(self.model.engine)) as deltas:
            async for delta in deltas:
                held.append(delta)
                ready = [d for d in held if self._is_scored(d.index // self.plan.n)]
                held = [d for d in held if not self._is_scored(d.index // self.plan.n)]
                for each in ready:
                    yield each

    def _is_scored(self, p: int) -> bool:
        scored = self.run.scored.get(p * self.plan.n, ())
        return self.plan.prompt_ask is None or len(scored) == len(self.plan.prompts[p]) - 1

    def _best_of(self, p: int) -> list[int]:
        """The n most likely per token, most likely first; without `best_of` all as they are."""
        indices = list(range(p * self.plan.n, (p + 1) * self.plan.n))
        if self.plan.n > self.body.n:
            indices.sort(key=self._mean, reverse=True)
        return indices[: self.body.n]

    def _mean(self, index: int) -> float:
        return self.sums[index] / max(1, self.run.choices[index].num_tokens)

    def _choice(self, delta: Delta) -> Json:
        offset = len(self.echoes[delta.index // self.plan.n].text) if self.echoes else 0
        if self.plan.n > self.body.n:
            self.sums[delta.index] += sum(drawn.told.logprob for drawn in delta.drawn)
            self.outputs[delta.index] += [drawn.token for drawn in delta.drawn]
        choice: Json = {
            "index": delta.index,
            "text": delta.text,
            "logprobs": None,
            "finish_reason": delta.finish_reason,
            "stop_reason": delta.stop_reason,
        }
        if self.body.logprobs is not None:
            choice["logprobs"] = self.legacy.empty()
            for drawn in delta.drawn:
                one = self.legacy.of_token(drawn.told, drawn.report, offset + drawn.offset)
                extend(choice["logprobs"], one)
        if self.body.return_token_ids:
            choice["token_ids"] = [drawn.token for drawn in delta.drawn]
        return choice

    def _begun(self, index: int, choice: Json) -> Json:
        """With what stands before the first token: the echo, and what is told of the prompt."""
        p = index // self.plan.n
        if self.body.prompt_logprobs is not None:
            choice["prompt_logprobs"] = self._prompt_logprobs(p)
        if self.body.return_token_ids:
            choice["prompt_token_ids"] = list(self.plan.prompts[p])
        if not self.echoes:
            return choice
        choice["text"] = self.echoes[p].text + choice["text"]
        if self.body.logprobs is not None:
            logprobs = self._echoed_logprobs(p)
            extend(logprobs, choice["logprobs"])
            choice["logprobs"] = logprobs
        return choice

    def _echoed_logprobs(self, p: int) -> Json:
        ids, offsets = self.plan.prompts[p], self.echoes[p].offsets
        found = self.legacy.of_first(ids[0], offsets[0])
        scored = self.run.scored.get(p * self.plan.n, [])
        for (score, report), offset in zip(scored, offsets[1:], strict=True):
            extend(found, self.legacy.of_token(score, report, offset))
        return found

    def _prompt_logprobs(self, p: int) -> list[Json | None]:
        """As vLLM has them: by id, the prompt's own token among the most likely."""
        scored = self.run.scored.get(p * self.plan.n, [])
        count = self.body.prompt_logprobs
        return [
            None,
            *(
                {
                    str(s.token): self._by_id(s)
                    for s in (*(report.top[:count] if report else ()), score)
                }
                for score, report in scored
            ),
        ]

    def _by_id(self, score: Score) -> Json:
        return {
            "logprob": finite(score.logprob),
            "rank": score.rank,
            "decoded_token": self.model.tokenizer.token_text(score.token),
        }


async def raw_sums(plan: Plan, outputs: Sequence[Sequence[int]], engine: Engine) -> list[float]:
    """
    Of each choice's tokens under the model's own distribution: scored as the end of a prompt, whose
    beginning is in the prefix cache.
    """
    requests = [
        Request(
            id=f"{plan.id}-raw-{i}",
            prompt=(*plan.prompts[i // plan.n], *output),
            max_tokens=0,
            prompt_ask=Ask(),
            first_scored=len(plan.prompts[i // plan.n]),
            cache_salt=plan.cache_salt,
            timeout=plan.timeout,
        )
        for i, output in enumerate(outputs)
    ]
    outcomes = await run_wave(engine, requests, is_part=True)
    return [sum(score.logprob for score in outcome.scored) for outcome in outcomes]


def add(choice: Json, new: Json) -> None:
    choice["text"] += new["text"]
    if new["logprobs"] is not None:
        extend(choice["logprobs"], new["logprobs"])
    if "token_ids" in new:
        choice["token_ids"] += new["token_ids"]
    choice["finish_reason"], choice["stop_reason"] = new["finish_reason"], new["stop_reason"]
