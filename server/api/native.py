"""
The native routes. Each reads a checked body, runs it by the engine and answers in the documented
form.
"""

from __future__ import annotations

import asyncio
import re
from functools import cache
from secrets import token_hex

from fastapi import APIRouter, Request
from fastapi.responses import Response

from server.api import probabilities
from server.api import score as scoring
from server.api import surprisal as surprise
from server.api.body import JsonRoute
from server.api.encode import LARGE, dumps
from server.api.generate import (
    GenerationAnswer,
    amounts_of,
    checked_grammar,
    num_reports,
    plan_generation,
)
from server.api.prompts import check_bytes, check_ids, resolve_prompts
from server.api.responses import MODEL_ERRORS, Parts, json_answer
from server.api.schemas import answers
from server.api.schemas.native import (
    DetokenizeBody,
    GenerateBody,
    ProbabilitiesBody,
    ScoreBody,
    SurprisalBody,
    TokenizeBody,
)
from server.api.service import CurrentModel, CurrentService, ServedModel, Service, cache_salt
from server.api.sse import EventStream
from server.api.tokens import Json
from server.api.waves import Call
from server.errors import BadRequest

router = APIRouter(route_class=JsonRoute, redirect_slashes=False)

NPY = "application/x-npy"
# For readers of the OpenAPI document: what the tokens of one answer can be sent on as.
TOKENS_GO_ON: Json = {
    name: {"operationId": operation, "requestBody": {field: "$response.body#/tokens"}}
    for name, operation, field in (
        ("text", "detokenize_detokenize_post", "tokens"),
        ("generation", "generate_generate_post", "prompt"),
        (
            "probabilities",
            "next_token_probabilities_next_token_probabilities_post",
            "prompt",
        ),
    )
}


@router.post(
    "/generate",
    responses={
        200: {"model": answers.Generation, "content": {"text/event-stream": {}}},
        **MODEL_ERRORS,
    },
)
async def generate(
    request: Request, body: GenerateBody, service: CurrentService, model: CurrentModel
) -> Response:
    """Continue prompts: one answer, or with `stream` one event a step."""
    prompts = await resolve_prompts(
        service, model, body.prompt, body.add_special_tokens, body.parse_special
    )
    call_id = f"gen-{token_hex(16)}"
    salt = cache_salt(request, service.settings.prefix_cache, call_id)
    grammar = await checked_grammar(body, body.response_format, model)
    plan = plan_generation(
        body, amounts_of(body), prompts, model, service.settings, call_id, salt, grammar
    )
    answer = GenerationAnswer(body, plan, model)
    if body.stream:
        return EventStream(answer.events())
    return await json_answer(await answer.whole(), num_reports(plan))


@router.post(
    "/next-token-probabilities",
    responses={
        200: {
            "model": answers.NextTokenProbabilities,
            "content": {NPY: {"schema": {"type": "string", "format": "binary"}}},
        },
        **MODEL_ERRORS,
    },
)
async def next_token_probabilities(
    request: Request, body: ProbabilitiesBody, service: CurrentService, model: CurrentModel
) -> Response:
    """
    What the model expects next, after each prompt: the most likely tokens, chosen ones, or all.
    """
    is_npy = accepts(request.headers.get("accept", ""), NPY)
    is_full = is_npy or body.full is not False
    prompts = await resolve_prompts(
        service, model, body.prompt, body.add_special_tokens, body.parse_special
    )
    probabilities.check_sizes(body, len(prompts), is_full, model, service.settings)
    ids = body.ids + await probabilities.single_tokens(body, service, model)
    call_id = f"ntp-{token_hex(16)}"
    reports, endings = await probabilities.run(
        prompts,
        *probabilities.ask_of(body, ids, is_full),
        model=model,
        call_id=call_id,
        cache_salt=cache_salt(request, service.settings.prefix_cache, call_id),
        timeout=service.settings.request_timeout,
    )
    if is_npy:
        return Parts(await asyncio.to_thread(probabilities.npy_parts, reports), NPY)
    size = len(prompts) * (body.top_k + len(ids) + (model.vocab_size if is_full else 0))
    parts = (body, prompts, reports, endings, model, call_id)
    if size <= LARGE // 16:
        return await json_answer(probabilities.answer(*parts), 0)
    return await json_answer(await asyncio.to_thread(probabilities.answer, *parts), size)


def accepts(header: str, media_type: str) -> bool:
    """Whether `Accept` names the type itself, and not to exclude it (q=0)."""
    for part in header.lower().split(","):
        kind, *parameters = (piece.strip() for piece in part.split(";"))
        if kind == media_type:
            return not any(re.fullmatch(r"q\s*=\s*0(\.0*)?", each) for each in parameters)
    return False


@router.post("/score", responses={200: {"model": answers.Scores}, **MODEL_ERRORS})
async def score(
    request: Request, body: ScoreBody, service: CurrentService, model: CurrentModel
) -> Response:
    """How likely each of many continuations is, after one prompt or several."""
    scored, baseline = await scoring.prepare(body, service, model)
    call = new_call(request, service, "score")
    await scoring.run(scored, baseline, model, call)
    size = sum(each.num_tokens for each in scored)
    parts = (body, scored, baseline, model, call.id)
    if size <= LARGE // 16:
        return await json_answer(scoring.answer(*parts), 0)
    return await json_answer(await asyncio.to_thread(scoring.answer, *parts), size)


@router.post("/surprisal", responses={200: {"model": answers.Surprisals}, **MODEL_ERRORS})
async def surprisal(
    request: Request, body: SurprisalBody, service: CurrentService, model: CurrentModel
) -> Response:
    """How unexpected each token and each word of a text is, and the text as a whole."""
    texts = await surprise.prepare(body, service, model)
    call = new_call(request, service, "surprisal")
    await surprise.run(texts, body, model, call)
    size = sum(len(text.pieces) for text in texts)
    parts = (texts, body, model, call.id)
    if size <= LARGE // 16:
        return await json_answer(surprise.answer(*parts), 0)
    return await json_answer(await asyncio.to_thread(surprise.answer, *parts), size)


def new_call(request: Request, service: Service, kind: str) -> Call:
    call_id = f"{kind}-{token_hex(16)}"
    settings = service.settings
    return Call(
        call_id,
        cache_salt(request, settings.prefix_cache, call_id),
        timeout=settings.request_timeout,
        wave_size=max(1, settings.max_batch // 2),
    )


@router.post(
    "/tokenize",
    responses={200: {"model": answers.Tokenized, "links": TOKENS_GO_ON}, **MODEL_ERRORS},
)
async def tokenize(body: TokenizeBody, service: CurrentService, model: CurrentModel) -> Response:
    """The tokens of a text, and the characters that each has bytes of."""
    check_bytes(body.prompt, model, "prompt")
    limit = service.settings.max_reports
    return Parts(await service.tokenize(tokenized, body, model, limit), "application/json")


def tokenized(body: TokenizeBody, model: ServedModel, limit: int) -> list[bytes]:
    """The answer's JSON; what a token is told as is made once, however often the token comes."""
    tokenizer = model.tokenizer
    prompt, flags = body.prompt, (body.add_special_tokens, body.parse_special)
    if len(prompt) > limit // 8 and (count := len(tokenizer.encode(prompt, *flags))) > limit:
        raise BadRequest(f"prompt is {count} tokens; at most {limit} are told at once", "prompt")
    pieces = tokenizer.pieces(prompt, *flags)

    @cache
    def told(token: int) -> str:
        own = tokenizer.token_bytes(token)
        piece = {"id": token, "text": own.decode("utf-8", "replace"), "bytes": list(own)}
        return dumps(piece).removesuffix("}")

    listed = ",".join(f'{told(p.token)},"start":{p.start},"end":{p.end}}}' for p in pieces)
    ids = dumps([piece.token for piece in pieces])
    return [
        f'{{"tokens":{ids},"count":{len(pieces)},"pieces":['.encode(),
        listed.encode(),
        f'],"max_model_len":{model.context_length}}}'.encode(),
    ]


@router.post("/detokenize", responses={200: {"model": answers.Detokenized}, **MODEL_ERRORS})
async def detokenize(
    body: DetokenizeBody, service: CurrentService, model: CurrentModel
) -> Response:
    """The text of tokens, special ones spelled out."""
    check_ids(body.tokens, model.vocab_size, "tokens")
    text = await service.tokenize(model.tokenizer.decode, list(body.tokens))
    return await json_answer({"prompt": text}, 0)


@router.get("/tokenizer_info", responses={200: {"model": answers.TokenizerInfo}, **MODEL_ERRORS})
async def tokenizer_info(model: CurrentModel) -> Response:
    """The special tokens and the chat template."""
    special = model.special
    named = {"bos": special.bos, "eos": special.eos, "pad": special.pad, "unk": special.unk}
    found: Json = {}
    for name, token in named.items():
        found[f"{name}_token"] = None if token is None else model.tokenizer.token_text(token)
        found[f"{name}_token_id"] = token
    found |= {
        "stop_token_ids": list(special.stops),
        "adds_bos": special.adds_bos,
        "vocab_size": model.vocab_size,
        "chat_template": model.chat_template,
    }
    return await json_answer(found, 0)
