"""
`response_format` and its vLLM twin `structured_outputs`, read into the one kind of grammar.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import PlainValidator

from server.constrain.grammar import MAX_GRAMMAR_BYTES, Grammar, choice, json_schema
from server.errors import BadRequest, InvalidGrammar, UnknownField, Unsupported

MAX_CHOICES = 1024
MAX_SCHEMA_DEPTH = 48  # objects and lists within one another; a body holds 64, its own included
ANY_OBJECT = {"type": "object"}
Fields = Mapping[str, Any]


def parse_response_format(value: object) -> Grammar | None:
    """None where any text will do."""
    kind, fields = _type_of(value, FORMATS)
    return FORMATS[kind](fields)


def parse_json_format(value: object) -> Grammar | None:
    """The types that the chat route has, as OpenAI's has."""
    kind, fields = _type_of(value, JSON_FORMATS)
    return JSON_FORMATS[kind](fields)


def _type_of(value: object, known: Mapping[str, object]) -> tuple[str, Fields]:
    names = ", ".join(known)
    if value is None:
        return "text", {}
    if not isinstance(value, dict):
        raise BadRequest(f"response_format must be an object with a type: {names}", PARAM)
    kind = value.get("type")
    if not isinstance(kind, str) or kind not in known:
        raise BadRequest(
            f"response_format.type must be one of {names}, not {str(kind)[:40]!r}", f"{PARAM}.type"
        )
    return kind, value


PARAM = "response_format"
JSON_SCHEMA_TYPES = (
    ("name", str, "a string"),
    ("description", str, "a string"),
    ("strict", bool, "true or false"),
)


def _text(fields: Fields) -> None:
    _check_known(fields, "type", PARAM)


def _json_object(fields: Fields) -> Grammar:
    """With a `value` it is a schema, as text-generation-inference and its clients have it."""
    _check_known(fields, "type value", PARAM)
    if fields.get("value") is not None:
        return read_schema(fields["value"], f"{PARAM}.value")
    return json_schema(ANY_OBJECT, PARAM)


def _json_schema(fields: Fields) -> Grammar:
    """OpenAI's form. `strict` may be false: the answer follows the schema all the same."""
    _check_known(fields, "type json_schema", PARAM)
    param = f"{PARAM}.json_schema"
    own = fields.get("json_schema")
    if not isinstance(own, dict):
        raise BadRequest(f"{param} must be an object with a schema", param)
    _check_known(own, "name description schema strict", param)
    for name, kind, words in JSON_SCHEMA_TYPES:
        if own.get(name) is not None and type(own[name]) is not kind:
            raise BadRequest(f"{param}.{name} must be {words}", f"{param}.{name}")
    return read_schema(own.get("schema"), f"{param}.schema")


def _regex(fields: Fields) -> Grammar:
    """Clients of this field say `regex` or `pattern`."""
    name = "pattern" if "pattern" in fields else "regex"
    _check_known(fields, f"type {name}", PARAM)
    param = f"{PARAM}.{name}"
    return Grammar("regex", read_source(fields.get(name), param), param)


def _choice(fields: Fields) -> Grammar:
    _check_known(fields, "type choices", PARAM)
    return read_choices(fields.get("choices"), f"{PARAM}.choices")


def _lark(fields: Fields) -> Grammar:
    _check_known(fields, "type grammar", PARAM)
    param = f"{PARAM}.grammar"
    return Grammar("lark", read_source(fields.get("grammar"), param), param)


Reader = Callable[[Fields], Grammar | None]
JSON_FORMATS: Mapping[str, Reader] = {
    "text": _text,
    "json_object": _json_object,
    "json_schema": _json_schema,
}
FORMATS: Mapping[str, Reader] = {
    **JSON_FORMATS,
    "regex": _regex,
    "choice": _choice,
    "grammar": _lark,
}


def _check_known(fields: Fields, known: str, param: str) -> None:
    for name in fields:
        if name not in known.split():
            path = f"{param}.{name[:40]}"
            raise UnknownField(f"{path} is not a field here; {known} are", path)


def read_schema(schema: object, param: str) -> Grammar:
    if not isinstance(schema, dict):
        raise InvalidGrammar(f"{param} must be a JSON schema, which is an object", param)
    if is_deeper(schema, MAX_SCHEMA_DEPTH):
        raise too_deep(param)
    grammar = json_schema(schema, param)
    read_source(grammar.source, param)
    return grammar


def too_deep(param: str) -> InvalidGrammar:
    return InvalidGrammar(
        f"{param} is nested deeper than the {MAX_SCHEMA_DEPTH} levels that are allowed", param
    )


def is_deeper(value: object, levels: int) -> bool:
    """Looks no deeper than that many levels."""
    if not isinstance(value, dict | list):
        return False
    items = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(is_deeper(item, levels - 1) for item in items)


def read_schema_text(text: str, param: str) -> Grammar:
    """A schema as a string of JSON."""
    try:
        schema = json.loads(read_source(text, param))
    except RecursionError:
        raise too_deep(param) from None
    except ValueError as error:
        raise InvalidGrammar(f"{param} is not JSON: {error}", param) from None
    return read_schema(schema, param)


def read_source(text: object, param: str) -> str:
    if not isinstance(text, str):
        raise InvalidGrammar(f"{param} must be a string", param)
    if (size := len(text.encode())) > MAX_GRAMMAR_BYTES:
        raise InvalidGrammar(
            f"{param} is {size} bytes; at most {MAX_GRAMMAR_BYTES} are allowed", param
        )
    return text


def read_choices(texts: object, param: str) -> Grammar:
    is_list = isinstance(texts, list) and all(isinstance(text, str) and text for text in texts)
    if not isinstance(texts, list) or not is_list or not 1 <= len(texts) <= MAX_CHOICES:
        raise InvalidGrammar(
            f"{param} must be a list of 1 to {MAX_CHOICES} strings, none of them empty", param
        )
    grammar = choice(texts, param)
    read_source(grammar.source, param)
    return grammar


def parse_structured_outputs(value: object) -> Grammar | None:
    """vLLM's field: exactly one of its ways of saying what the answer may be."""
    param = "structured_outputs"
    if not isinstance(value, dict):
        raise BadRequest(f"{param} must be an object", param)
    given = {name: own for name, own in value.items() if own not in (None, False)}
    if len(given) != 1:
        raise BadRequest(f"{param} must have one of json, regex, choice and grammar", param)
    [(name, own)] = given.items()
    at = f"{param}.{name[:40]}"
    if name == "json":
        return read_schema_text(own, at) if isinstance(own, str) else read_schema(own, at)
    if name == "json_object":
        return json_schema(ANY_OBJECT, at)
    if name == "choice":
        return read_choices(own, at)
    if name in ("regex", "grammar"):
        return Grammar("regex" if name == "regex" else "lark", read_source(own, at), at)
    raise Unsupported(f"{at} is not supported; json, regex, choice and grammar are", at)


FormatJson = dict[str, Any] | None
ResponseFormat = Annotated[
    Grammar | None, PlainValidator(parse_response_format, json_schema_input_type=FormatJson)
]
JsonFormat = Annotated[
    Grammar | None, PlainValidator(parse_json_format, json_schema_input_type=FormatJson)
]
StructuredOutputs = Annotated[
    Grammar | None, PlainValidator(parse_structured_outputs, json_schema_input_type=FormatJson)
]
