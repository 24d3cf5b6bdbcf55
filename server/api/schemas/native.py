"""The bodies of the native routes: every field, its type, its bounds and what it defaults to."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from server.api.schemas.fields import (
    MAX_SEED,
    MAX_TEMPERATURE,
    MIN_TEMPERATURE,
    Continuations,
    Full,
    LogitBias,
    NativeBody,
    OptionalPrompt,
    OptionalTokenList,
    Prompts,
    Stops,
    Temperature,
    Texts,
    TokenList,
)
from server.api.schemas.formats import ResponseFormat

MAX_COUNT = 2**31 - 1  # of whatever is counted: no number beyond it reaches an index
Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]
Penalty = Annotated[float, Field(ge=-2, le=2)]


class PromptBody(NativeBody):
    prompt: Prompts
    add_special_tokens: bool = True
    parse_special: bool = True


class GenerationFields(NativeBody):
    """What every route that generates takes, in either dialect."""

    max_tokens: Count = 128
    temperature: Temperature = 1.0
    top_k: Count = 0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    repetition_penalty: Annotated[float, Field(ge=0.01, le=100)] = 1.0
    presence_penalty: Penalty = 0.0
    frequency_penalty: Penalty = 0.0
    seed: Annotated[int, Field(ge=-MAX_SEED - 1, le=MAX_SEED)] | None = None
    n: Annotated[int, Field(ge=1, le=MAX_COUNT)] = 1
    stop: Stops = ()
    stop_token_ids: TokenList = ()
    include_stop: bool = False
    min_tokens: Count = 0
    ignore_eos: bool = False
    logit_bias: LogitBias = ()
    allowed_token_ids: OptionalTokenList = None
    logprobs_mode: Literal["raw", "processed"] = "raw"
    response_format: ResponseFormat = None
    stream: bool = False


class GenerateBody(PromptBody, GenerationFields):
    logprobs: Count | None = None
    prompt_logprobs: Count | None = None


class ProbabilitiesBody(PromptBody):
    top_k: Count = 20
    ids: TokenList = ()
    texts: Annotated[tuple[str, ...], Field(max_length=4096, strict=False)] = ()
    temperature: Annotated[float, Field(ge=MIN_TEMPERATURE, le=MAX_TEMPERATURE)] = 1.0
    full: Full = False


class ScoreBody(PromptBody):
    continuations: Continuations
    normalize: Literal["sum", "mean", "bytes"] = "sum"
    baseline: OptionalPrompt = None


class SurprisalBody(NativeBody):
    text: Texts
    unit: Literal["bits", "nats"] = "bits"
    by: Literal["token", "word"] = "token"
    bos: bool | None = None
    window: Annotated[int, Field(ge=2, le=MAX_COUNT)] | None = None
    stride: Annotated[int, Field(ge=1, le=MAX_COUNT)] | None = None
    parse_special: bool = True


class TokenizeBody(NativeBody):
    prompt: str
    add_special_tokens: bool = True
    parse_special: bool = True


class DetokenizeBody(NativeBody):
    tokens: TokenList
