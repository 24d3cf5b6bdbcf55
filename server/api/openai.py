"""
The OpenAI routes: the same engine as the native ones, answered in the form that OpenAI's clients
read.
"""

from __future__ import annotations

from secrets import token_hex

from fastapi import APIRouter, Request
from fastapi.responses import Response

from server.api.body import JsonRoute
from server.api.chat import ChatAnswer, plan_chat, prompt_of
from server.api.completions import CompletionAnswer, echoes_of, plan_completion
from server.api.dialect import check_model, ignored_header
from server.api.generate import checked_grammar, num_reports
from server.api.prompts import resolve_prompts
from server.api.responses import MODEL_ERRORS, json_answer
from server.api.schemas import openai_answers as answers
from server.api.schemas.openai import ChatBody, CompletionBody
from server.api.service import CurrentModel, CurrentService, ServedModel, Service, cache_salt
from server.api.sse import EventStream
from server.api.tokens import Json

router = APIRouter(route_class=JsonRoute, redirect_slashes=False, prefix="/v1")

MODEL_OF_LIST: Json = {  # for readers of the OpenAPI document
    "model": {
        "operationId": "one_model_v1_models__name__get",
        "parameters": {"name": "$response.body#/data/0/id"},
    }
}


@router.get(
    "/models", responses={200: {"model": answers.Models, "links": MODEL_OF_LIST}, **MODEL_ERRORS}
)
async def models(service: CurrentService, model: CurrentModel) -> Response:
    """The one model that is served."""
    return await json_answer({"object": "list", "data": [model_card(service, model)]}, 0)


@router.get("/models/{name:path}", responses={200: {"model": answers.Model}, **MODEL_ERRORS})
async def one_model(name: str, service: CurrentService, model: CurrentModel) -> Response:
    check_model(name, model)
    return await json_answer(model_card(service, model), 0)


def model_card(service: Service, model: ServedModel) -> Json:
    return {
        "id": model.name,
        "object": "model",
        "created": service.created,
        "owned_by": "tiedlm",
        "max_model_len": model.context_length,
    }


@router.post(
    "/completions",
    responses={
        200: {"model": answers.Completion, "content": {"text/event-stream": {}}},
        **MODEL_ERRORS,
    },
)
async def completions(
    request: Request, body: CompletionBody, service: CurrentService, model: CurrentModel
) -> Response:
    """Continue prompts, or score them: `echo` with `logprobs` and `max_tokens` 0."""
    check_model(body.model, model)
    prompts = await resolve_prompts(
        service, model, body.prompt, body.add_special_tokens, body.parse_special
    )
    echoes = await echoes_of(body, prompts, model, service)
    grammar = await checked_grammar(body, body.response_format or body.structured_outputs, model)
    call_id = f"cmpl-{token_hex(16)}"
    salt = cache_salt(request, service.settings.prefix_cache, call_id)
    plan = plan_completion(body, prompts, model, service, call_id, salt, grammar)
    answer = CompletionAnswer(body, plan, model, echoes)
    headers = ignored_header(body)
    if body.stream:
        return EventStream(answer.events(), headers)
    return await json_answer(await answer.whole(), num_reports(plan), headers)


@router.post(
    "/chat/completions",
    responses={
        200: {"model": answers.ChatCompletion, "content": {"text/event-stream": {}}},
        **MODEL_ERRORS,
    },
)
async def chat_completions(
    request: Request, body: ChatBody, service: CurrentService, model: CurrentModel
) -> Response:
    """Answer a conversation, by the model's own chat template."""
    check_model(body.model, model)
    prompt = await prompt_of(body, model, service)
    grammar = await checked_grammar(body, body.response_format or body.structured_outputs, model)
    call_id = f"chatcmpl-{token_hex(16)}"
    salt = cache_salt(request, service.settings.prefix_cache, call_id)
    plan = plan_chat(body, prompt, model, service, call_id, salt, grammar)
    answer = ChatAnswer(body, plan, model)
    headers = ignored_header(body, unknown_in_messages(body))
    if body.stream:
        return EventStream(answer.events(), headers)
    return await json_answer(await answer.whole(), num_reports(plan), headers)


def unknown_in_messages(body: ChatBody) -> list[str]:
    return [f"messages.{i}.{name}" for i, own in enumerate(body.messages) for name in own.unknown()]
