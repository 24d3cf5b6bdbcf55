"""Schemas that the grammar library would follow only nearly: refused, or said in its words."""

import json

import pytest

from server.constrain.grammar import json_schema
from tests.scripted import EOS
from tests.server.constrain.following import OTHER_END, after, error_of, is_followed

NUMBERS = {"type": "object", "additionalProperties": {"type": "integer"}}


@pytest.mark.parametrize(
    ("schema", "where", "why"),
    [
        (NUMBERS | {"minProperties": 2}, "at #:", "minProperties is 2"),
        ({"items": NUMBERS | {"minProperties": 3, "required": ["a"]}}, "#/items", "only 1"),
        ({"const": 2**53 + 1}, "at #:", "9007199254740993"),
        ({"const": 12345678901234567890}, "at #:", "12345678901234567890"),
        ({"properties": {"a": {"enum": [1, [{"b": 2**60 + 1}]]}}}, "#/properties/a", "115292"),
        ({"const": 1e300}, "at #:", "1e+300"),
        ({"type": "integer", "minimum": 2**53 + 1}, "at #:", "9007199254740993"),
        ({"type": "integer", "multipleOf": -1}, "at #:", "multipleOf is -1"),
        ({"type": "null", "$defs": {"x": 5}}, "#/$defs/x", "object or a boolean"),
        ({"type": "null", "$defs": []}, "at #:", "$defs must be an object"),
        ({"type": "object", "additionalProperties": 5}, "#/additionalProperties", "object"),
    ],
)
def test_what_would_be_followed_only_nearly_is_refused(grammars, schema, where, why):
    """
    The library counted a repeated name as two properties, and rounded numbers to doubles: answers
    were finished that did not validate.
    """
    message = error_of(grammars, json_schema(schema, "schema"))
    assert where in message
    assert why in message


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        (NUMBERS | {"minProperties": 1}, '{"a": 1}'),
        (NUMBERS | {"minProperties": 2, "required": ["a", "b"]}, '{"a": 1, "b": 2}'),
        ({"const": 2**60}, str(2**60)),
        ({"const": 10**22}, str(10**22)),
        ({"type": "integer", "minimum": 2**62, "maximum": 2**63 - 1}, str(2**63 - 1)),
        ({"type": "array", "items": {"type": "null"}, "uniqueItems": False}, "[null, null]"),
        (NUMBERS | {"propertyNames": {"type": "string"}}, '{"a": 1}'),
    ],
)
def test_what_is_followed_exactly_is_taken(grammars, schema, text):
    assert EOS in after(grammars, json_schema(schema, "schema"), text.encode())


@pytest.mark.parametrize(
    ("pattern", "text", "is_matched"),
    [
        ('^[^"]*$', 'a"', False),
        ('^[^"\\\\]*$', "a\\", False),
        ('^[^"\\n]*$', '"', False),
        ('^[^-"]*$', '"', False),
        ('^[^-"]*$', "-", False),
        ('^[^-"]*$', "+a\n\x01\\", True),
        ('^\\[[^"]*$', "[a", True),
        ("^[^a]*$", '"\\', True),
    ],
)
def test_a_negated_class_excludes_quotes_and_backslashes(grammars, pattern, text, is_matched):
    """They came as escapes: `[^"]` was matched by `\\"`."""
    schema = {"type": "string", "pattern": pattern}
    written = json.dumps(text)[:-1].encode()
    assert is_matched == is_followed(grammars, json_schema(schema, "schema"), written)
    names = {"type": "object", "patternProperties": {pattern: {}}, "additionalProperties": False}
    assert is_matched == is_followed(grammars, json_schema(names, "schema"), b"{" + written)


@pytest.mark.parametrize(("kind", "rest"), [("date", ""), ("date-time", "T12:00:00Z")])
def test_a_date_is_one_of_the_calendar(grammars, kind, rest):
    """29 February of any year used to follow, and the year 0, which datetime does not read."""
    grammar = json_schema({"type": "string", "format": kind}, "schema")
    for date in ("2024-02-29", "2000-02-29", "2023-02-28", "0001-12-31"):
        assert after(grammars, grammar, f'"{date}{rest}"'.encode()) == {EOS, OTHER_END}
    for year in ("2023", "1900"):
        assert not {*b"9"} & after(grammars, grammar, f'"{year}-02-2'.encode())
    assert not {*b"0"} & after(grammars, grammar, b'"000')


def test_where_a_reference_leads_is_told(grammars):
    """It was said to be where the reference stands."""
    wrong = {"type": "array", "items": {"type": "strng"}}
    schema = {"properties": {"a": {"$ref": "#/$defs/a"}}, "$defs": {"a": wrong}}
    assert "at #/$defs/a/items: " in error_of(grammars, json_schema(schema, "schema"))
    endless = {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}
    assert "refers to itself" in error_of(grammars, json_schema(endless, "schema"))
