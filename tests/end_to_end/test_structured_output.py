"""Sixty schemas and more grammars on a real checkpoint: what is finished is what was asked for."""

import json
import math
import re
from concurrent.futures import ThreadPoolExecutor

import jsonschema
import pytest

from tests.end_to_end.running import TIEDLM, Server, events, eventually, is_idle

TEXT = {"type": "string", "maxLength": 12}
NUMBER = {"type": "integer", "minimum": 0, "maximum": 999}


def record(**properties):
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def listed(items, **bounds):
    return {"type": "array", "items": items, "maxItems": 3} | bounds


NODE = {"$ref": "#/$defs/node"}
SCALARS = [
    {"type": "string", "maxLength": 8},
    {"type": "string", "minLength": 3, "maxLength": 5},
    {"type": "string", "pattern": "^[A-Z]{2}[0-9]{3}$"},
    {"type": "string", "pattern": "^(ja|nein)$"},
    {"type": "string", "format": "date"},
    {"type": "string", "format": "time"},
    {"type": "string", "format": "uuid"},
    {"type": "string", "format": "ipv4"},
    {"type": "integer", "minimum": -5, "maximum": 5},
    {"type": "integer", "exclusiveMinimum": 10, "exclusiveMaximum": 13},
    {"type": "integer", "multipleOf": 5, "minimum": 0, "maximum": 100},
    {"type": "number", "minimum": 0, "maximum": 1},
    {"type": "boolean"},
    {"type": "null"},
    {"const": "exactly this"},
    {"const": {"a": [1, 2, None]}},
    {"enum": ["red", "green", "blue"]},
    {"enum": [1, "one", None, True, [1]]},
    {"enum": ["世界", "naïve", "😀", 'a"b', "line\nend"]},
    {"type": ["string", "null"], "maxLength": 5},
]
UNIONS = [
    {"anyOf": [{"type": "integer", "maximum": 99, "minimum": 0}, {"type": "null"}]},
    {"anyOf": [{"const": "a"}, {"const": "b"}, record(c=NUMBER)]},
    {"oneOf": [{"type": "boolean"}, {"type": "null"}]},
    {"oneOf": [record(kind={"const": "x"}, n=NUMBER), record(kind={"const": "y"}, s=TEXT)]},
    {"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 7}]},
    record(value={"anyOf": [NUMBER, TEXT, {"type": "null"}]}),
    record(kind={"enum": ["a", "b"]}, value={"type": ["integer", "boolean"], "maximum": 9}),
    {"anyOf": [listed(NUMBER), record(items=listed(NUMBER))]},
]
LISTS = [
    listed(NUMBER),
    listed({"type": "boolean"}, minItems=2),
    listed(TEXT, minItems=1, maxItems=2),
    listed(listed(NUMBER, maxItems=2), maxItems=2),
    listed({"enum": ["a", "b"]}, minItems=3),
    {"type": "array", "prefixItems": [NUMBER, {"type": "boolean"}], "items": False, "minItems": 2},
    {"type": "array", "maxItems": 0},
    listed(record(x=NUMBER), minItems=1, maxItems=2),
    listed({"anyOf": [NUMBER, {"type": "null"}]}),
    listed({"const": 7}, minItems=3),
]
RECORDS = [
    record(name=TEXT, age=NUMBER),
    record(a=record(b=record(c=record(d={"type": "boolean"})))),
    record(point=record(x=NUMBER, y=NUMBER), tags=listed({"enum": ["a", "b"]})),
    {"type": "object", "properties": {"a": NUMBER, "b": NUMBER}, "additionalProperties": False},
    {
        "type": "object",
        "properties": {"a": NUMBER},
        "required": ["a"],
        "additionalProperties": False,
    },
    {"type": "object", "additionalProperties": NUMBER, "maxProperties": 2},
    {"type": "object", "maxProperties": 0},
    record(**{"ключ": NUMBER, "世界": {"type": "boolean"}}),
    record(**{'quote"d': NUMBER, "slash/\\": {"type": "null"}}),
    record(city=TEXT, capital={"type": "boolean"}, founded={"type": "string", "format": "date"}),
    record(
        answer={"enum": ["yes", "no"]}, confidence={"type": "number", "minimum": 0, "maximum": 1}
    ),
    record(title={"type": "string", "maxLength": 6}, empty={"type": "array", "maxItems": 0}),
    record(deep=listed(record(deeper=listed(NUMBER, maxItems=1)), maxItems=1)),
    {**record(colour={"$ref": "#/$defs/colour"}), "$defs": {"colour": {"enum": ["red", "blue"]}}},
    {**record(a={"$ref": "#/definitions/n"}), "definitions": {"n": NUMBER}},
]
RECURSIVE = [
    {**NODE, "$defs": {"node": record(n={"enum": [1]}, next={"anyOf": [{"type": "null"}, NODE]})}},
    {**NODE, "$defs": {"node": {"anyOf": [{"type": "null"}, listed(NODE, maxItems=1)]}}},
    {**record(tree=NODE), "$defs": {"node": record(v=NUMBER, kids=listed(NODE, maxItems=1))}},
    {
        "$ref": "#/$defs/even",
        "$defs": {
            "even": {"anyOf": [{"const": 0}, record(odd={"$ref": "#/$defs/odd"})]},
            "odd": {"anyOf": [{"const": 1}, record(even={"$ref": "#/$defs/even"})]},
        },
    },
    {"anyOf": [{"type": "null"}, record(self={"$ref": "#"})]},
    {**listed({"anyOf": [{"const": "leaf"}, {"$ref": "#"}]}, maxItems=1)},
    {"type": "object", "properties": {"l": {"$ref": "#"}}, "additionalProperties": False},
]
SCHEMAS = SCALARS + UNIONS + LISTS + RECORDS + RECURSIVE
MAX_TOKENS = 48


@pytest.fixture(scope="module")
def smollm():
    flags = ("--kv-cache-tokens", "8192", "--max-context", "1024")
    with Server(*flags, command=[*TIEDLM, "serve", "smollm2-135m-instruct"]) as running:
        yield running.ready(patience=600)


def json_format(schema):
    return {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}


def test_sixty_schemas_are_followed(smollm):
    assert len(SCHEMAS) >= 60

    def ask(schema):
        body = {
            "messages": [{"role": "user", "content": "Answer in JSON."}],
            "max_tokens": MAX_TOKENS,
            "temperature": 0.7,
            "seed": 7,
            "response_format": json_format(schema),
        }
        return smollm.post("/v1/chat/completions", body, timeout=300)

    with ThreadPoolExecutor(len(SCHEMAS)) as threads:
        answers = list(threads.map(ask, SCHEMAS))
    num_finished = 0
    for schema, answer in zip(SCHEMAS, answers, strict=True):
        assert answer.status_code == 200, (schema, answer.text)
        [choice] = answer.json()["choices"]
        if choice["finish_reason"] == "stop":
            num_finished += 1
            checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
            jsonschema.validate(
                json.loads(choice["message"]["content"]), schema, format_checker=checker
            )
    assert num_finished >= 50


def complete(server, response_format, **fields):
    body = {"prompt": "Answer: ", "temperature": 0, "response_format": response_format} | fields
    answer = server.post("/v1/completions", body)
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]


def test_the_other_kinds_of_grammar_are_followed(smollm):
    expression = "[0-9]{3}-[0-9]{4}"
    assert re.fullmatch(
        expression, complete(smollm, {"type": "regex", "regex": expression})["text"]
    )
    texts = ["maybe", 'quo"te', "世界"]
    assert complete(smollm, {"type": "choice", "choices": texts})["text"] in texts
    lark = 'start: item ("," item)* "."\nitem: "a" | "b"'
    told = complete(smollm, {"type": "grammar", "grammar": lark}, max_tokens=40, seed=1)
    if told["finish_reason"] == "stop":
        assert re.fullmatch(r"[ab](,[ab])*\.", told["text"])
    told = complete(smollm, {"type": "json_object"}, max_tokens=100)
    if told["finish_reason"] == "stop":
        assert isinstance(json.loads(told["text"]), dict)


def test_the_native_route_streams_under_a_grammar(smollm):
    body = {
        "prompt": "Is the sky blue? ",
        "response_format": {"type": "choice", "choices": ["yes", "no"]},
        "stream": True,
        "logprobs": 2,
        "n": 2,
    }
    with smollm.http.stream("POST", "/generate", json=body) as response:
        *parts, _, done = events(response)
    for index in (0, 1):
        own = [p["choices"][0] for p in parts if p["choices"][0]["index"] == index]
        assert "".join(choice["text"] for choice in own) in ("yes", "no")
        assert own[-1]["finish_reason"] == "stop"
    assert done == "[DONE]"


def test_log_probabilities_are_raw_or_what_was_drawn_from(smollm):
    """Raw: the model's own, as without a grammar. Processed: they sum to one over what may come."""
    fields = {
        "max_tokens": 1,
        "logprobs": 20,
        "response_format": {"type": "regex", "regex": "[0-9]"},
    }
    prompt = {"prompt": "The number is ", "temperature": 1, "seed": 5, "parse_special": True}
    [raw] = smollm.generate(**prompt, **fields)["choices"]
    [drawn] = smollm.generate(**prompt, **fields, logprobs_mode="processed")["choices"]
    free = {**fields, "response_format": None}
    [plain] = smollm.generate(**prompt, **free)["choices"]
    assert raw["text"] == drawn["text"]
    assert raw["tokens"][0]["top"] == plain["tokens"][0]["top"]
    told = {token["text"]: token["logprob"] for token in drawn["tokens"][0]["top"]}
    possible = {text: logprob for text, logprob in told.items() if logprob > -9999}
    assert set(possible) == {*"0123456789"}
    assert math.isclose(sum(map(math.exp, possible.values())), 1, rel_tol=1e-5)
    selected = smollm.post(
        "/next-token-probabilities", {"prompt": prompt["prompt"], "texts": [raw["text"]]}
    ).json()["results"][0]["selected"][0]
    assert raw["tokens"][0]["logprob"] == selected["logprob"]


def test_a_cut_answer_says_so(smollm):
    told = complete(smollm, json_format(record(a=TEXT)), max_tokens=2)
    assert told["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        (json_format({"type": "x"}), "invalid_grammar", "response_format.json_schema.schema"),
        ({"type": "regex", "regex": "("}, "invalid_grammar", "response_format.regex"),
        ({"type": "choice", "choices": []}, "invalid_grammar", "response_format.choices"),
        ({"type": "grammar", "grammar": "x"}, "invalid_grammar", "response_format.grammar"),
        ({"type": "regex", "regex": "a" * 70_000}, "invalid_grammar", "response_format.regex"),
        ({"type": "xml"}, "invalid_value", "response_format.type"),
        *(
            (
                {"type": "json_schema", "json_schema": {"schema": {}, name: 5}},
                "invalid_value",
                f"response_format.json_schema.{name}",
            )
            for name in ("name", "description", "strict")
        ),
        ({"type": "json_schema"}, "invalid_value", "response_format.json_schema"),
        ({"type": "regex", "regex": "a", "x": 1}, "unknown_field", "response_format.x"),
    ],
)
def test_a_wrong_format_is_refused(smollm, fields, code, param):
    for path in ("/generate", "/v1/completions"):
        answer = smollm.post(path, {"prompt": "a", "response_format": fields})
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["param"]) == (400, code, param)


def nested(levels):
    return {"type": "array", "items": nested(levels - 1)} if levels else {"type": "null"}


def test_a_schema_nested_too_deeply_is_told_the_limit(smollm):
    """As text it passes the limit of a whole body, and used to be called too complex."""
    body = {"prompt": "a", "max_tokens": 1}
    for schema in (nested(60), json.dumps(nested(200)), "[" * 30_000):
        answer = smollm.post("/v1/completions", body | {"structured_outputs": {"json": schema}})
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (400, "invalid_grammar"), error
        assert "48 levels" in error["message"]
    whole = smollm.post("/v1/completions", body | {"response_format": json_format(nested(200))})
    assert "nested deeper than the 64" in whole.json()["error"]["message"]
    fits = {"structured_outputs": {"json": json.dumps(nested(40))}}
    assert smollm.post("/v1/completions", body | fits).status_code == 200
    for text in ("{", "NaN", "5", "a" * 70_000):
        answer = smollm.post("/v1/completions", body | {"structured_outputs": {"json": text}})
        assert answer.json()["error"]["code"] == "invalid_grammar"


def test_a_schema_beside_json_object_is_followed(smollm):
    """The form of text-generation-inference, which huggingface_hub's client sends."""
    value = record(city={"enum": ["Paris", "Lyon"]})
    told = complete(smollm, {"type": "json_object", "value": value}, max_tokens=16)
    jsonschema.validate(json.loads(told["text"]), value)


def test_vllms_field_is_another_way_of_saying_it(smollm):
    body = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 8}
    told = smollm.post(
        "/v1/chat/completions", body | {"structured_outputs": {"choice": ["left", "right"]}}
    ).json()
    assert told["choices"][0]["message"]["content"] in ("left", "right")
    both = body | {"structured_outputs": {"regex": "a"}, "response_format": {"type": "json_object"}}
    assert smollm.post("/v1/chat/completions", both).status_code == 400


def test_nothing_is_held_when_all_is_over(smollm):
    eventually(lambda: is_idle(smollm))
