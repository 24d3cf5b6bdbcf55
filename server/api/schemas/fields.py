"""Types that several request bodies share, each with the checks that need no model."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationInfo,
)

from server.errors import BadRequest, EmptyPrompt

MAX_STOPS = 16
MAX_STOP_BYTES = 1024
MAX_LOGIT_BIASES = 1024
MAX_SEED = 2**63 - 1
MAX_CONTINUATIONS = 4096
MIN_TEMPERATURE = 1e-6  # below it float32 logits overflow; 0 itself is greedy
MAX_TEMPERATURE = 100.0

TextOrIds = str | tuple[int, ...]

# What the OpenAPI document says of the fields that are parsed here: as much as a schema can.
Id = Annotated[int, Field(ge=0)]
SomeIds = Annotated[list[Id], Field(min_length=1)]
SomeText = Annotated[str, Field(min_length=1)]
Stop = Annotated[str, Field(min_length=1, max_length=MAX_STOP_BYTES)]
Bias = Annotated[float, Field(ge=-100, le=100)]


class NativeBody(BaseModel):
    """Nothing is coerced, and a field that is not known is refused."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=()
    )


def parse_prompts(value: object) -> tuple[TextOrIds, ...]:
    """
    A string, a list of strings, a list of token ids or a list of those lists -> its prompts, in
    order.
    """
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list):
        raise BadRequest(
            "prompt must be a string, a list of strings, a list of token ids or a list of those "
            f"lists, not {type_name(value)}",
            "prompt",
        )
    if not value:
        raise EmptyPrompt("prompt is an empty list; it must hold at least one prompt", "prompt")
    kinds = set(map(type, value))
    if kinds == {str}:
        return tuple(value)
    if kinds == {int}:
        return (tuple(value),)
    if kinds == {list}:
        return tuple(parse_ids(ids, f"prompt.{i}") for i, ids in enumerate(value))
    raise BadRequest(
        "prompt is a list of " + " and ".join(sorted({type_name(v) for v in value})) + "; it must "
        "hold strings alone, token ids alone, or lists of token ids alone",
        "prompt",
    )


def parse_ids(ids: list[Any], param: str) -> tuple[int, ...]:
    if not ids:
        raise EmptyPrompt(f"{param} has no token ids; it must have at least one", param)
    if set(map(type, ids)) != {int}:
        at, wrong = next((i, v) for i, v in enumerate(ids) if type(v) is not int)
        raise BadRequest(f"{param} must hold token ids, not {type_name(wrong)}", f"{param}.{at}")
    return tuple(ids)


def parse_token_list(value: object, info: ValidationInfo) -> tuple[int, ...]:
    name = str(info.field_name)
    if not isinstance(value, list):
        raise BadRequest(f"{name} must be a list of token ids, not {type_name(value)}", name)
    return parse_ids(value, name) if value else ()


def parse_optional_token_list(value: object, info: ValidationInfo) -> tuple[int, ...] | None:
    return None if value is None else parse_token_list(value, info)


def type_name(value: object) -> str:
    """JSON's word for it."""
    names = {str: "string", bool: "boolean", int: "integer", float: "number", dict: "object"}
    return names.get(type(value), "list" if isinstance(value, list) else "null")


def parse_stops(value: object) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(stops, list) or any(type(stop) is not str for stop in stops):
        raise BadRequest("stop must be null, a string or a list of strings", "stop")
    if len(stops) > MAX_STOPS:
        raise BadRequest(f"stop has {len(stops)} strings; at most {MAX_STOPS} are allowed", "stop")
    for i, stop in enumerate(stops):
        size = len(stop.encode())
        if not 1 <= size <= MAX_STOP_BYTES:
            param = "stop" if isinstance(value, str) else f"stop.{i}"
            raise BadRequest(
                f"{param} is {size} bytes; a stop string is 1 to {MAX_STOP_BYTES}", param
            )
    return tuple(stops)


def parse_logit_bias(value: object) -> tuple[tuple[int, float], ...]:
    """
    `{"50256": -100}` as OpenAI has it: JSON's keys are strings, so the ids are written as such.
    """
    if not isinstance(value, dict):
        raise BadRequest("logit_bias must be an object of token id to bias", "logit_bias")
    if len(value) > MAX_LOGIT_BIASES:
        raise BadRequest(
            f"logit_bias has {len(value)} tokens; at most {MAX_LOGIT_BIASES} are allowed",
            "logit_bias",
        )
    return tuple(_one_bias(key, bias) for key, bias in value.items())


def _one_bias(key: str, bias: object) -> tuple[int, float]:
    param = f"logit_bias.{key[:40]}"
    if not (key.isascii() and key.isdigit() and len(key) <= 10 and str(int(key)) == key):
        raise BadRequest(f"logit_bias: {key[:40]!r} is not a token id", param)
    if type(bias) not in (int, float) or not -100 <= bias <= 100:  # type: ignore[operator]
        raise BadRequest(f"{param} must be a number from -100 to 100, not {str(bias)[:40]}", param)
    return int(key), float(bias)  # type: ignore[arg-type]


def parse_continuations(value: object) -> tuple[TextOrIds, ...]:
    """A list of texts and of lists of token ids, which may be mixed."""
    if not isinstance(value, list):
        raise BadRequest(
            f"continuations must be a list of strings or of lists of token ids, not "
            f"{type_name(value)}",
            "continuations",
        )
    if not 1 <= len(value) <= MAX_CONTINUATIONS:
        raise BadRequest(
            f"continuations has {len(value)} of them; 1 to {MAX_CONTINUATIONS} are allowed",
            "continuations",
        )
    return tuple(_continuation(each, f"continuations.{i}") for i, each in enumerate(value))


def _continuation(value: object, param: str) -> TextOrIds:
    if not isinstance(value, str | list):
        raise BadRequest(
            f"{param} must be a string or a list of token ids, not {type_name(value)}", param
        )
    if not value:
        raise BadRequest(f"{param} is empty; it must have at least one token", param)
    return value if isinstance(value, str) else parse_ids(value, param)


def parse_one_prompt(value: object, info: ValidationInfo) -> TextOrIds | None:
    name = str(info.field_name)
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise BadRequest(
            f"{name} must be null, a string or a list of token ids, not {type_name(value)}", name
        )
    return parse_ids(value, name)


def parse_texts(value: object) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or any(type(text) is not str for text in texts):
        raise BadRequest("text must be a string or a list of strings", "text")
    if not texts:
        raise EmptyPrompt("text is an empty list; it must hold at least one text", "text")
    for i, text in enumerate(texts):
        if not text:
            param = "text" if value is text else f"text.{i}"
            raise EmptyPrompt(f"{param} is empty: there is nothing to score", param)
    return tuple(texts)


def check_temperature(value: object) -> object:
    if type(value) in (int, float) and 0 < value < MIN_TEMPERATURE:  # type: ignore[operator]
        raise BadRequest(
            f"temperature is {value}; it must be 0 (greedy) or from {MIN_TEMPERATURE} to "
            f"{MAX_TEMPERATURE}",
            "temperature",
        )
    return value


def check_full(value: object) -> object:
    if value is False or value in ("json", "base64"):
        return value
    raise BadRequest(f'full must be false, "json" or "base64", not {str(value)[:40]!r}', "full")


Prompts = Annotated[
    tuple[TextOrIds, ...],
    PlainValidator(
        parse_prompts,
        json_schema_input_type=str
        | Annotated[list[str], Field(min_length=1)]
        | SomeIds
        | Annotated[list[SomeIds], Field(min_length=1)],
    ),
]
Stops = Annotated[
    tuple[str, ...],
    PlainValidator(
        parse_stops,
        json_schema_input_type=Stop | Annotated[list[Stop], Field(max_length=MAX_STOPS)] | None,
    ),
]
LogitBias = Annotated[
    tuple[tuple[int, float], ...],
    PlainValidator(
        parse_logit_bias,
        json_schema_input_type=Annotated[
            dict[Annotated[str, Field(pattern="^(0|[1-9][0-9]{0,9})$")], Bias],
            Field(max_length=MAX_LOGIT_BIASES),
        ],
    ),
]
TokenList = Annotated[
    tuple[int, ...], PlainValidator(parse_token_list, json_schema_input_type=list[Id])
]
OptionalTokenList = Annotated[
    tuple[int, ...] | None,
    PlainValidator(parse_optional_token_list, json_schema_input_type=SomeIds | None),
]
Continuations = Annotated[
    tuple[TextOrIds, ...],
    PlainValidator(
        parse_continuations,
        json_schema_input_type=Annotated[
            list[SomeText | SomeIds], Field(min_length=1, max_length=MAX_CONTINUATIONS)
        ],
    ),
]
OptionalPrompt = Annotated[
    TextOrIds | None,
    PlainValidator(parse_one_prompt, json_schema_input_type=str | SomeIds | None),
]
Texts = Annotated[
    tuple[str, ...],
    PlainValidator(
        parse_texts,
        json_schema_input_type=SomeText | Annotated[list[SomeText], Field(min_length=1)],
    ),
]
Full = Annotated[Literal[False, "json", "base64"], BeforeValidator(check_full)]
Temperature = Annotated[float, BeforeValidator(check_temperature), Field(ge=0, le=MAX_TEMPERATURE)]
