"""What the OpenAI routes answer, as the OpenAPI document tells it."""

from __future__ import annotations

from typing import Any, Literal

from server.api.schemas.answers import Alternative, Answer

FinishReason = Literal["stop", "length"] | None


class Model(Answer):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    max_model_len: int


class Models(Answer):
    object: Literal["list"]
    data: list[Model]


class CachedTokens(Answer):
    cached_tokens: int


class OpenAiUsage(Answer):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens


class LegacyLogprobs(Answer):
    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]
    top_logprobs_list: list[list[Alternative] | None]


class CompletionChoice(Answer):
    index: int
    text: str
    logprobs: LegacyLogprobs | None
    finish_reason: FinishReason
    stop_reason: str | int | None
    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None
    prompt_logprobs: list[dict[str, Any] | None] | None = None


class OpenAiAnswer(Answer):
    id: str
    created: int
    model: str
    system_fingerprint: str
    usage: OpenAiUsage


class Completion(OpenAiAnswer):
    object: Literal["text_completion"]
    choices: list[CompletionChoice]


class ChatAlternative(Answer):
    token: str
    id: int
    logprob: float
    bytes: list[int]


class ChatToken(ChatAlternative):
    top_logprobs: list[ChatAlternative]


class ChatLogprobs(Answer):
    content: list[ChatToken]
    refusal: None


class ChatMessage(Answer):
    role: Literal["assistant"]
    content: str
    refusal: None


class ChatChoice(Answer):
    index: int
    message: ChatMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason
    stop_reason: str | int | None
    token_ids: list[int] | None = None


class ChatCompletion(OpenAiAnswer):
    object: Literal["chat.completion"]
    choices: list[ChatChoice]
