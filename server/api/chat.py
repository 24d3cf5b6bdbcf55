"""
POST /v1/chat/completions: messages through the model's own template, and OpenAI's form of answers.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from model.step import Score
from server.api.dialect import check_alternatives, head, usage
from server.api.encode import finite
from server.api.generate import Amounts, plan_generation
from server.api.generation import Delta, Drawn, Generation, Plan
from server.api.prompts import check_beginning, check_context
from server.api.schemas.openai import ChatBody, Message
from server.api.service import ServedModel, Service
from server.api.tokens import Json
from server.constrain.masks import CheckedGrammar
from server.errors import UntemplatedModel

Ids = tuple[int, ...]
ROLES = {"developer": "system"}  # OpenAI's newer word for it, which templates do not know


async def prompt_of(body: ChatBody, model: ServedModel, service: Service) -> Ids:
    if model.chat is None:
        raise UntemplatedModel(
            f"{model.name} has no chat template; /v1/completions and /generate take a prompt",
            "messages",
        )
    messages = [template_fields(message) for message in body.messages]
    for i, message in enumerate(messages):
        param = f"messages.{i}.content"
        await check_beginning(service, model, message["content"], False, param)
    longest = model.context_length * model.tokenizer.max_token_bytes
    ids = await model.chat.encode_at_once(messages, longest)
    if ids is None:
        ids = await service.render(model.chat.encode, messages, longest)
    check_context(len(ids), 0, model.context_length, "messages")
    return tuple(ids)


def template_fields(message: Message) -> dict[str, str]:
    fields = {"role": ROLES.get(message.role, message.role), "content": message.content}
    return fields if message.name is None else fields | {"name": message.name}


def amounts_of(body: ChatBody) -> Amounts:
    """Without a bound of the client's the answer may take all the rest of the context."""
    return Amounts(
        n=body.n,
        max_tokens=body.max_completion_tokens or body.max_tokens,
        is_bounded=bool(body.model_fields_set & {"max_tokens", "max_completion_tokens"}),
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
    )


def plan_chat(
    body: ChatBody,
    prompt: Ids,
    model: ServedModel,
    service: Service,
    call_id: str,
    salt: str,
    grammar: CheckedGrammar | None,
) -> Plan:
    check_alternatives("top_logprobs", body.top_logprobs, service.settings, model.vocab_size)
    amounts = amounts_of(body)
    if amounts.is_bounded:
        check_context(len(prompt), amounts.max_tokens, model.context_length, "messages")
    return plan_generation(body, amounts, [prompt], model, service.settings, call_id, salt, grammar)


class ChatAnswer:
    def __init__(self, body: ChatBody, plan: Plan, model: ServedModel) -> None:
        self.body, self.plan, self.model = body, plan, model
        self.run = Generation(plan, model.tokenizer)

    async def whole(self) -> Json:
        texts = [""] * self.plan.num_choices
        drawn: list[list[Drawn]] = [[] for _ in texts]
        ends: dict[int, Delta] = {}
        async with aclosing(self.run.deltas(self.model.engine)) as deltas:
            async for delta in deltas:
                texts[delta.index] += delta.text
                drawn[delta.index] += delta.drawn
                ends[delta.index] = delta
        choices = [
            self._ended(i, ends[i], drawn[i])
            | {"message": {"role": "assistant", "content": text, "refusal": None}}
            for i, text in enumerate(texts)
        ]
        kind = head(self.plan.id, "chat.completion", self.model)
        return {**kind, "choices": choices, "usage": usage(self.run)}

    async def events(self) -> AsyncGenerator[Json, None]:
        """A choice begins with its role and ends with its reason, each in an event of its own."""
        kind = head(self.plan.id, "chat.completion.chunk", self.model)
        more = {"usage": None} if self.body.has_usage else {}
        begun: set[int] = set()
        async with aclosing(self.run.deltas(self.model.engine)) as deltas:
            async for delta in deltas:
                for choice in self._chunks(delta, is_first=delta.index not in begun):
                    yield {**kind, "choices": [choice], **more}
                begun.add(delta.index)
        if self.body.has_usage:
            yield {**kind, "choices": [], "usage": usage(self.run)}

    def _chunks(self, delta: Delta, *, is_first: bool) -> list[Json]:
        going_on = Delta(delta.index, "", ())
        chunks = []
        if is_first:
            role = {"role": "assistant", "content": "", "refusal": None}
            chunks.append(self._ended(delta.index, going_on, []) | {"delta": role})
        if delta.text or delta.drawn:
            said = self._ended(delta.index, going_on, delta.drawn)
            chunks.append(said | {"delta": {"content": delta.text}})
        if delta.finish_reason is not None:
            chunks.append(self._ended(delta.index, delta, None) | {"delta": {}})
        return chunks

    def _ended(self, index: int, end: Delta, drawn: list[Drawn] | tuple[Drawn, ...] | None) -> Json:
        choice: Json = {
            "index": index,
            "logprobs": None,
            "finish_reason": end.finish_reason,
            "stop_reason": end.stop_reason,
        }
        if self.body.logprobs and drawn is not None:
            content = [self._token(each) for each in drawn]
            choice["logprobs"] = {"content": content, "refusal": None}
        if self.body.return_token_ids:
            choice["token_ids"] = [each.token for each in drawn or ()]
        return choice

    def _token(self, drawn: Drawn) -> Json:
        top = drawn.report.top if drawn.report else ()
        return self._one(drawn.told) | {"top_logprobs": [self._one(score) for score in top]}

    def _one(self, score: Score) -> Json:
        own = self.model.tokenizer.token_bytes(score.token)
        text = own.decode("utf-8", "replace")
        return {
            "token": f"token_id:{score.token}" if self.body.return_tokens_as_token_ids else text,
            "id": score.token,
            "logprob": finite(score.logprob),
            "bytes": list(own),
        }
