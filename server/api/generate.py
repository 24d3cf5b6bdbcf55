"""
POST /generate: from its body to a plan, and from what is generated to its answer or its events.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from model.step import Ask, Sampling
from server.api.generation import Delta, Drawn, Generation, Plan
from server.api.prompts import check_context, check_ids
from server.api.schemas.native import GenerateBody, GenerationFields
from server.api.service import ServedModel
from server.api.tokens import Json, alternatives, computed, timings, token, usage
from server.constrain.grammar import Grammar
from server.constrain.masks import CheckedGrammar
from server.errors import BadRequest, InvalidToken, Unsupported
from server.settings import Settings

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Amounts:
    """Of what is to be generated and told: the dialects have names and bounds of their own."""

    n: int
    max_tokens: int
    is_bounded: bool  # by the client
    logprobs: int | None
    prompt_logprobs: int | None = None


def amounts_of(body: GenerateBody) -> Amounts:
    is_bounded = "max_tokens" in body.model_fields_set
    return Amounts(body.n, body.max_tokens, is_bounded, body.logprobs, body.prompt_logprobs)


def plan_generation(
    body: GenerationFields,
    amounts: Amounts,
    prompts: Sequence[Ids],
    model: ServedModel,
    settings: Settings,
    call_id: str,
    cache_salt: str,
    grammar: CheckedGrammar | None = None,
) -> Plan:
    check_counts(amounts.n, len(prompts), settings)
    check_token_fields(body, model.vocab_size)
    plan = Plan(
        id=call_id,
        prompts=prompts,
        max_tokens=[
            tokens_left(amounts, body.min_tokens, prompt, model.context_length)
            for prompt in prompts
        ],
        sampling=sampling_of(body),
        seed=body.seed,
        n=amounts.n,
        ask=ask_of(amounts.logprobs, is_processed=body.logprobs_mode == "processed"),
        prompt_ask=ask_of(amounts.prompt_logprobs),
        stops=body.stop,
        is_stop_included=body.include_stop,
        stop_token_ids=frozenset(body.stop_token_ids),
        end_ids=frozenset() if body.ignore_eos else frozenset(model.special.stops),
        min_tokens=body.min_tokens,
        cache_salt=cache_salt,
        timeout=settings.request_timeout,
        grammar=grammar,
    )
    check_reports(amounts, plan, model, settings)
    return plan


async def checked_grammar(
    body: GenerationFields, grammar: Grammar | None, model: ServedModel
) -> CheckedGrammar | None:
    """Raises InvalidGrammar, and BadRequest where other fields contradict it."""
    if grammar is None:
        return None
    if not model.special.stops:
        raise Unsupported(f"{grammar.param}: this model has no end token", grammar.param)
    for name in ("ignore_eos", "allowed_token_ids"):
        if getattr(body, name):
            raise BadRequest(f"{name} contradicts {grammar.param}: give one of the two", name)
    return await model.grammars.check(grammar)


def check_counts(n: int, num_prompts: int, settings: Settings, param: str = "n") -> None:
    if n > settings.max_n:
        raise BadRequest(f"{param} is {n}; at most {settings.max_n} is allowed", param)
    if num_prompts * n > settings.max_queue:
        raise BadRequest(
            f"{num_prompts} prompts x {param}={n} are {num_prompts * n} sequences; at most "
            f"{settings.max_queue} are allowed in one call",
            param,
        )


def check_token_fields(body: GenerationFields, vocab_size: int) -> None:
    check_ids(body.stop_token_ids, vocab_size, "stop_token_ids")
    for biased, _ in body.logit_bias:
        if biased >= vocab_size:
            raise InvalidToken(
                f"logit_bias holds the token id {biased}; ids are from 0 to {vocab_size - 1}",
                f"logit_bias.{biased}",
            )
    if body.allowed_token_ids is not None:
        check_ids(body.allowed_token_ids, vocab_size, "allowed_token_ids")
        if not body.allowed_token_ids:
            raise BadRequest(
                "allowed_token_ids is empty: at least one token must be allowed",
                "allowed_token_ids",
            )
    if body.top_k > vocab_size:
        raise BadRequest(f"top_k is {body.top_k}; the vocabulary has {vocab_size} tokens", "top_k")


def tokens_left(amounts: Amounts, min_tokens: int, prompt: Ids, context_length: int) -> int:
    """max_tokens: refused where it was asked for and cannot be had, else cut to what is left."""
    if amounts.is_bounded:
        check_context(len(prompt), amounts.max_tokens, context_length, "prompt")
    left = min(amounts.max_tokens, context_length - len(prompt))
    if min_tokens > left:
        raise BadRequest(
            f"min_tokens is {min_tokens}, more than the {left} that may be generated",
            "min_tokens",
        )
    return left


def sampling_of(body: GenerationFields) -> Sampling:
    allowed = body.allowed_token_ids
    return Sampling(
        allowed_ids=None if allowed is None else tuple(sorted(set(allowed))),
        logit_bias=body.logit_bias,
        repetition_penalty=body.repetition_penalty,
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
        temperature=body.temperature,
        top_k=body.top_k,
        top_p=body.top_p,
        min_p=body.min_p,
    )


def ask_of(top: int | None, *, is_processed: bool = False) -> Ask | None:
    return None if top is None else Ask(top=top, is_processed=is_processed)


def check_reports(amounts: Amounts, plan: Plan, model: ServedModel, settings: Settings) -> None:
    """
    An answer's log-probabilities are kept in memory until it is sent: their number is bounded
    first.
    """
    most = model.vocab_size if settings.max_logprobs == -1 else settings.max_logprobs
    for name in ("logprobs", "prompt_logprobs"):
        value = getattr(amounts, name)
        if value is not None and value > most:
            raise BadRequest(f"{name} is {value}; at most {most} is allowed", name)
    allowed = max(settings.max_reports, most + 1)  # of one token they always may be asked
    if (reports := num_reports(plan)) > allowed:
        raise BadRequest(
            f"this asks for up to {reports} log-probabilities (tokens x (alternatives + 1)); at "
            f"most {allowed} are allowed in one call",
            "logprobs" if amounts.logprobs is not None else "prompt_logprobs",
        )


def num_reports(plan: Plan) -> int:
    """At most so many log-probabilities come of it."""
    generated = plan.n * sum(plan.max_tokens) * (plan.ask.top + 1) if plan.ask else 0
    if plan.prompt_ask is None:
        return generated
    return generated + sum(map(len, plan.prompts)) * (plan.prompt_ask.top + 1)


class GenerationAnswer:
    """
    The JSON of one call. The events of a stream are made of the same parts as the whole answer.
    """

    def __init__(self, body: GenerateBody, plan: Plan, model: ServedModel) -> None:
        self.body, self.plan, self.model = body, plan, model
        self.generation = Generation(plan, model.tokenizer)
        self.head: Json = {
            "id": plan.id,
            "object": "generation",
            "created": int(time.time()),
            "model": model.name,
        }

    async def whole(self) -> Json:
        choices = [self._choice(Delta(i, "", ())) for i in range(self.plan.num_choices)]
        async with aclosing(self.generation.deltas(self.model.engine)) as deltas:
            async for delta in deltas:
                extend(choices[delta.index], self._choice(delta))
        return {**self.head, "choices": choices, **self._tail()}

    async def events(self) -> AsyncGenerator[Json, None]:
        async with aclosing(self.generation.deltas(self.model.engine)) as deltas:
            async for delta in deltas:
                yield {**self.head, "choices": [self._choice(delta)]}
        yield {**self.head, "choices": [], **self._tail()}

    def _choice(self, delta: Delta) -> Json:
        choice: Json = {
            "index": delta.index,
            "text": delta.text,
            "token_ids": [drawn.token for drawn in delta.drawn],
            "finish_reason": delta.finish_reason,
            "stop_reason": delta.stop_reason,
        }
        if self.body.logprobs is not None:
            choice["tokens"] = [self._token(drawn) for drawn in delta.drawn]
        return choice

    def _token(self, drawn: Drawn) -> Json:
        tokenizer = self.model.tokenizer
        top = drawn.report.top if drawn.report else ()
        return {
            **token(tokenizer, drawn.token, drawn.told.logprob),
            "offset": drawn.offset,
            "top": alternatives(tokenizer, top),
        }

    def _tail(self) -> Json:
        """What is known at the end alone."""
        run = self.generation
        tail: Json = {
            "usage": usage(run.num_prompt_tokens, run.num_drawn, run.num_cached),
            "timings": timings(list(run.endings.values()), run.num_drawn),
            "computed": computed(self.model, self.body.logprobs_mode, run.num_cached),
        }
        if self.body.prompt_logprobs is not None:
            tail["prompts"] = [self._prompt(p, ids) for p, ids in enumerate(self.plan.prompts)]
        return tail

    def _prompt(self, p: int, ids: Ids) -> Json:
        """Nothing precedes a prompt's first token: it has no log-probability."""
        tokenizer = self.model.tokenizer
        scored = self.generation.scored.get(p * self.plan.n, [])
        first = token(tokenizer, ids[0], None) | {"top": []}
        rest = [
            token(tokenizer, score.token, score.logprob)
            | {"top": alternatives(tokenizer, report.top if report else ())}
            for score, report in scored
        ]
        return {"token_ids": list(ids), "tokens": [first, *rest]}


def extend(choice: Json, new: Json) -> None:
    """Adds what is new: the stream's events, put together, are the whole answer."""
    for name in ("text", "token_ids", "tokens"):
        if name in new:
            choice[name] += new[name]
    choice["finish_reason"], choice["stop_reason"] = new["finish_reason"], new["stop_reason"]
