"""
From what a client calls a prompt to token ids that fit. Every refusal names the value and the
limit.
"""

from __future__ import annotations

from collections.abc import Sequence

from server.api.schemas.fields import TextOrIds
from server.api.service import ServedModel, Service
from server.errors import BadRequest, ContextLengthExceeded, EmptyPrompt, InvalidToken

Ids = tuple[int, ...]

CHARACTERS_A_TOKEN = 8  # of a text that just fits; English has four


async def resolve_prompts(
    service: Service,
    model: ServedModel,
    prompts: Sequence[TextOrIds],
    add_special_tokens: bool,
    parse_special: bool,
) -> list[Ids]:
    limit = service.settings.max_prompts
    if len(prompts) > limit:
        raise BadRequest(
            f"prompt has {len(prompts)} prompts; at most {limit} are allowed", "prompt"
        )
    resolved = []
    for i, prompt in enumerate(prompts):
        param = "prompt" if len(prompts) == 1 else f"prompt.{i}"
        if isinstance(prompt, str):
            await check_beginning(service, model, prompt, parse_special, param)
            ids = await service.encode(model, prompt, add_special_tokens, parse_special)
            resolved.append(ids or (first_id(model, param),))
        else:
            check_ids(prompt, model.vocab_size, param)
            resolved.append(prompt)
        check_context(len(resolved[-1]), 0, model.context_length, param)
    return resolved


def first_id(model: ServedModel, param: str) -> int:
    """What an empty text starts from."""
    if model.special.bos is None:
        raise EmptyPrompt(f"{param} is empty, and this model has no BOS token to start from", param)
    return model.special.bos


def check_bytes(text: str, model: ServedModel, param: str) -> None:
    """A text that cannot fit is not tokenised: that could take seconds."""
    size = len(text.encode())
    longest = model.tokenizer.max_token_bytes
    if size > model.context_length * longest:
        raise ContextLengthExceeded(
            f"{param} is {size} bytes of text, at least {size // longest} tokens; the context is "
            f"{model.context_length} tokens",
            param,
        )


async def check_beginning(
    service: Service, model: ServedModel, text: str, parse_special: bool, param: str
) -> None:
    """
    A long text's beginning first: where that alone is too many tokens, the megabytes behind it are
    not tokenised, which could take seconds of the one thread. With half of the context to spare,
    since the last word of a beginning may be cut into other tokens than the whole one.
    """
    check_bytes(text, model, param)
    length = CHARACTERS_A_TOKEN * model.context_length
    if len(text) <= length:
        return
    beginning = await service.tokenize(model.tokenizer.encode, text[:length], False, parse_special)
    if len(beginning) > 1.5 * model.context_length:
        raise ContextLengthExceeded(
            f"{param} has {len(text)} characters, of which the first {length} are "
            f"{len(beginning)} tokens; the context is {model.context_length} tokens",
            param,
        )


def check_ids(ids: Sequence[int], vocab_size: int, param: str) -> None:
    if ids and (min(ids) < 0 or max(ids) >= vocab_size):
        at, wrong = next((i, v) for i, v in enumerate(ids) if not 0 <= v < vocab_size)
        raise InvalidToken(
            f"{param} holds the token id {wrong}; ids are from 0 to {vocab_size - 1}",
            f"{param}.{at}",
        )


def check_context(num_prompt: int, max_tokens: int, limit: int, param: str) -> None:
    if num_prompt > limit:
        raise ContextLengthExceeded(
            f"{param} is {num_prompt} tokens; the context is {limit} tokens", param
        )
    if num_prompt + max_tokens > limit:
        raise ContextLengthExceeded(
            f"{param} is {num_prompt} tokens and max_tokens is {max_tokens}, together "
            f"{num_prompt + max_tokens}; the context is {limit} tokens",
            param,
        )
