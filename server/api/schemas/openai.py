"""
The bodies of the OpenAI routes. They take null for whatever is optional, and fields that nobody
here knows: those are named in the answer's X-Ignored-Fields.

What OpenAI's own API has and this server cannot do is refused by name, wherever its value would
change the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    model_validator,
)

from server.api.schemas.fields import NativeBody, Prompts, type_name
from server.api.schemas.formats import JsonFormat, StructuredOutputs
from server.api.schemas.native import MAX_COUNT, Count, GenerationFields
from server.errors import BadRequest, Unsupported

MAX_MESSAGES = 4096
# OpenAI's, without any effect on what is answered.
HARMLESS = frozenset(
    {
        "metadata",
        "parallel_tool_calls",
        "prediction",
        "prompt_cache_key",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
    }
)
Test = Callable[[Any], bool]


def is_one_of(*values: object) -> Test:
    return lambda value: value in values


def is_empty(value: object) -> bool:
    return value in ([], "", {})


UNSUPPORTED_IN_MESSAGES: Mapping[str, Test] = {
    "tool_calls": is_empty,
    "function_call": is_empty,
    "audio": is_empty,
}


def tell_of_nulls(schema: dict[str, Any]) -> None:
    for name, told in schema["properties"].items():
        is_told = {"type": "null"} in told.get("anyOf", ())
        if name not in schema.get("required", ()) and not is_told:
            own = {key: told.pop(key) for key in list(told) if key not in ("title", "default")}
            told["anyOf"] = [own, {"type": "null"}]


class LenientBody(NativeBody):
    """null is as good as absent, and what is not known is kept aside."""

    model_config = ConfigDict(extra="allow", json_schema_extra=tell_of_nulls)
    refused: ClassVar[Mapping[str, Test]] = {}  # field -> whether its value changes nothing

    @model_validator(mode="before")
    @classmethod
    def drop_nulls(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        given = {name: own for name, own in value.items() if own is not None}
        for name, is_harmless in cls.refused.items():
            if name in given and not is_harmless(given[name]):
                raise Unsupported(f"{name} is not supported by this server", name)
        return given

    def unknown(self) -> list[str]:
        return [name for name in self.model_extra or {} if name not in HARMLESS | {*self.refused}]


class StreamOptions(LenientBody):
    include_usage: bool = False
    include_obfuscation: bool = False  # padding against eavesdroppers on a network: none is sent


class OpenAiBody(LenientBody, GenerationFields):
    model_config = ConfigDict(extra="allow")

    model: str | None = None
    stream_options: StreamOptions | None = None
    structured_outputs: StructuredOutputs = None
    return_token_ids: bool = False
    return_tokens_as_token_ids: bool = False

    @model_validator(mode="after")
    def check_streaming(self) -> OpenAiBody:
        if self.stream_options is not None and not self.stream:
            raise BadRequest("stream_options is only allowed with stream: true", "stream_options")
        if self.structured_outputs is not None and self.response_format is not None:
            raise BadRequest(
                "give one of response_format and structured_outputs, not both", "structured_outputs"
            )
        return self

    @property
    def has_usage(self) -> bool:
        """Whether a stream is to end with an event of its usage."""
        return self.stream_options is not None and self.stream_options.include_usage

    def ignored(self) -> list[str]:
        options = self.stream_options.unknown() if self.stream_options else []
        return self.unknown() + [f"stream_options.{name}" for name in options]


class CompletionBody(OpenAiBody):
    refused: ClassVar[Mapping[str, Test]] = {"suffix": is_empty}

    prompt: Prompts
    max_tokens: Count = 16
    add_special_tokens: bool = True
    parse_special: bool = True
    best_of: Annotated[int, Field(ge=1, le=MAX_COUNT)] | None = None
    echo: bool = False
    logprobs: Count | None = None
    prompt_logprobs: Count | None = None

    @model_validator(mode="after")
    def check_best_of(self) -> CompletionBody:
        if self.best_of is None or self.best_of == self.n:
            return self
        if self.best_of < self.n:
            raise BadRequest(f"best_of is {self.best_of}, less than n={self.n}", "best_of")
        if self.stream:
            raise BadRequest(
                f"best_of={self.best_of} with n={self.n} cannot be streamed: the best is not known "
                "before the end",
                "best_of",
            )
        return self


class TextPart(BaseModel):
    type: Literal["text"]
    text: str


def parse_content(value: object) -> str:
    """Text, or text parts, which are put together as they are."""
    if isinstance(value, str):
        return value
    parts = value if isinstance(value, list) else []
    texts = [part["text"] for part in parts if is_text_part(part)]
    if not texts or len(texts) < len(parts):
        raise ValueError("must be a string or a list of parts of type text")
    return "".join(texts)


def is_text_part(part: object) -> bool:
    return isinstance(part, dict) and part.get("type") == "text" and type(part.get("text")) is str


def check_messages(value: object) -> object:
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_MESSAGES:
        raise ValueError(f"must be a list of 1 to {MAX_MESSAGES} messages")
    for i, message in enumerate(value):
        if not isinstance(message, dict):
            place = f"messages.{i}"
            raise BadRequest(f"{place} must be an object, not {type_name(message)}", place)
        refuse_unsupported(message, f"messages.{i}")
    return value


def refuse_unsupported(message: dict[str, Any], place: str) -> None:
    """Before the types: a picture is to be refused as a picture, not as a wrong text part."""
    if message.get("role") in ("tool", "function"):
        raise Unsupported("messages of tools are not supported by this server", f"{place}.role")
    for name, is_harmless in UNSUPPORTED_IN_MESSAGES.items():
        if message.get(name) is not None and not is_harmless(message[name]):
            raise Unsupported(f"{place}.{name} is not supported by this server", f"{place}.{name}")
    content = message.get("content")
    for j, part in enumerate(content if isinstance(content, list) else ()):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind != "text" and isinstance(kind, str):
            raise Unsupported(
                f"content of type {kind[:40]!r} is not supported; text is", f"{place}.content.{j}"
            )


Content = Annotated[str, PlainValidator(parse_content, json_schema_input_type=str | list[TextPart])]


class Message(LenientBody):
    refused: ClassVar[Mapping[str, Test]] = UNSUPPORTED_IN_MESSAGES

    role: Literal["system", "developer", "user", "assistant"]
    content: Content
    name: str | None = None

    @model_validator(mode="before")
    @classmethod
    def keep_unknown_of_parts(cls, value: object) -> object:
        """Beside those of the message, since the parts are put together."""
        content = value.get("content") if isinstance(value, dict) else None
        if not isinstance(value, dict) or not isinstance(content, list):
            return value
        unknown = {
            f"content.{i}.{name}": own
            for i, part in enumerate(content)
            for name, own in (part.items() if isinstance(part, dict) else ())
            if name not in ("type", "text")
        }
        return value | unknown


class ChatBody(OpenAiBody):
    refused: ClassVar[Mapping[str, Test]] = {
        "audio": is_empty,
        "function_call": is_one_of("none", "auto"),
        "functions": is_empty,
        "modalities": is_one_of([], ["text"]),
        "moderation": is_empty,
        "reasoning_effort": is_one_of("none"),
        "tool_choice": is_one_of("none", "auto"),
        "tools": is_empty,
        "verbosity": is_one_of("medium"),
        "web_search_options": is_one_of(),
    }

    messages: Annotated[tuple[Message, ...], BeforeValidator(check_messages), Field(strict=False)]
    max_tokens: Annotated[int, Field(ge=1, le=MAX_COUNT)] = MAX_COUNT
    max_completion_tokens: Annotated[int, Field(ge=1, le=MAX_COUNT)] | None = None
    logprobs: bool = False
    top_logprobs: Count | None = None
    response_format: JsonFormat = None

    @model_validator(mode="after")
    def check_pairs(self) -> ChatBody:
        if self.top_logprobs is not None and not self.logprobs:
            raise BadRequest("top_logprobs needs logprobs: true", "top_logprobs")
        both = {"max_tokens", "max_completion_tokens"} <= self.model_fields_set
        if both and self.max_tokens != self.max_completion_tokens:
            raise BadRequest(
                f"max_tokens is {self.max_tokens} and max_completion_tokens is "
                f"{self.max_completion_tokens}; give one of the two",
                "max_completion_tokens",
            )
        return self
