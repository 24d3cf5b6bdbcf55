"""Grammars on a vocabulary of single bytes: what may follow, what is refused, what is survived."""

import asyncio
import json
import time

import numpy as np
import pytest

from server.constrain.grammar import Grammar, choice, json_schema
from server.constrain.masks import Grammars
from server.errors import InvalidGrammar
from server.text.tokenizer import TextTokenizer
from tests.scripted import EOS, VOCAB_SIZE, byte_tokenizer

OTHER_END = 258


@pytest.fixture(scope="module")
def grammars():
    made = Grammars(TextTokenizer(byte_tokenizer(), VOCAB_SIZE), (EOS, OTHER_END))
    yield made
    made.close()


def check(grammars, grammar):
    return asyncio.run(grammars.check(grammar))


def error_of(grammars, grammar):
    with pytest.raises(InvalidGrammar) as refusal:
        check(grammars, grammar)
    assert refusal.value.param == grammar.param
    return refusal.value.message


def regex(source):
    return Grammar("regex", source, "regex")


def allowed(mask):
    assert len(mask) * 8 >= VOCAB_SIZE
    bits = np.unpackbits(np.frombuffer(mask, np.uint8), bitorder="little")
    return set(np.flatnonzero(bits).tolist())


def after(grammars, grammar, text):
    """What may follow a text that was drawn token by token."""
    constraint = check(grammars, grammar).constraint()
    for end in range(len(text)):
        assert text[end] in allowed(constraint.mask(text[:end])())
    found = allowed(constraint.mask(text)())
    constraint.close()
    assert constraint.failure is None
    return found


def is_followed(grammars, grammar, text):
    """Whether a string that is begun may be ended here."""
    constraint = check(grammars, grammar).constraint()
    is_whole = all(
        (text + b'"')[end] in allowed(constraint.mask(text[:end])()) for end in range(len(text) + 1)
    )
    constraint.close()
    return is_whole


def test_a_mask_is_what_may_follow(grammars):
    digits = {*b"0123456789"}
    assert after(grammars, regex("[0-9]{2}-x"), b"") == digits
    assert after(grammars, regex("[0-9]{2}-x"), b"4") == digits
    assert after(grammars, regex("[0-9]{2}-x"), b"42") == {*b"-"}


def test_every_end_token_may_follow_what_is_whole_and_nothing_else_does(grammars):
    assert after(grammars, regex("ab"), b"ab") == {EOS, OTHER_END}
    assert after(grammars, regex("ab*"), b"ab") == {EOS, OTHER_END, *b"b"}


def test_an_id_without_bytes_never_follows(grammars):
    assert VOCAB_SIZE - 1 not in after(grammars, regex("(?s:.)*"), b"a")


@pytest.mark.parametrize("text", ["yes", 'a "quote"', "a\\b\n", "世界", "(x|y)*", "/"])
def test_a_choice_is_one_of_its_texts_to_the_letter(grammars, text):
    grammar = choice(["other", text], "choices")
    assert after(grammars, grammar, text.encode()) == {EOS, OTHER_END}


def test_asking_twice_changes_nothing(grammars):
    """As when a row is planned, its request preempted, and planned again."""
    constraint = check(grammars, regex("abc")).constraint()
    for end in range(3):
        for _ in range(2):
            assert allowed(constraint.mask(b"abc"[:end])()) == {b"abc"[end]}
    constraint.close()


def test_a_sequence_goes_on_in_a_new_child(grammars):
    constraint = check(grammars, regex("abcd")).constraint()
    assert allowed(constraint.mask(b"ab")()) == {*b"c"}
    grammars._quick._confined.close()
    assert allowed(constraint.mask(b"abc")()) == {*b"d"}
    assert constraint.failure is None
    constraint.close()


def test_properties_come_in_the_order_of_the_schema(grammars):
    schema = {
        "type": "object",
        "properties": {"b": {"type": "null"}, "a": {"type": "null"}},
        "required": ["a", "b"],
        "additionalProperties": False,
    }
    text = b'{"b": null, "a": null}'
    assert after(grammars, json_schema(schema, "schema"), text) == {EOS, OTHER_END}


@pytest.mark.parametrize(
    ("schema", "where", "why"),
    [
        ({"type": "objekt"}, "at #:", "objekt"),
        ({"properties": {"a/b": {"items": {"type": "strng"}}}}, "#/properties/a~1b/items", "strng"),
        ({"anyOf": [{"type": "null"}, {"not": {"type": "null"}}]}, "#/anyOf/1", "not"),
        ({"$defs": {"x": {"type": 5}}, "$ref": "#/$defs/x"}, "#/$defs/x", ""),
        ({"properties": {"u": {"type": "array", "uniqueItems": True}}}, "#/properties/u", "unique"),
        ({"$ref": "#/$defs/none"}, "at #:", "none"),
        ({"$ref": "http://127.0.0.1/x"}, "at #:", ""),
        ({"properties": {"p": {"type": "string", "pattern": "("}}}, "#/properties/p", "unclosed"),
        ({"type": "string", "minLength": 5, "maxLength": 3}, "at #:", "minLength"),
        ({"properties": {"n": {"not": {}}}, "x-guidance": {"lenient": True}}, "at #", "not"),
    ],
)
def test_a_schema_that_cannot_be_followed_is_refused_saying_where(grammars, schema, where, why):
    message = error_of(grammars, json_schema(schema, "schema"))
    assert where in message
    assert why in message


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


@pytest.mark.parametrize(
    ("grammar", "why"),
    [
        (regex("(("), "unclosed group"),
        (regex("(?=a)b"), "look-ahead"),
        (Grammar("lark", "start: foo", "grammar"), "foo"),
        (Grammar("json_schema", "[1]", "schema"), ""),
        (Grammar("json_schema", "{", "schema"), ""),
    ],
)
def test_what_is_no_grammar_is_refused(grammars, grammar, why):
    assert why in error_of(grammars, grammar)


def test_a_bomb_is_refused_and_what_runs_goes_on(grammars):
    patterns = [{"pattern": f"^.*a.{{{n}}}$"} for n in range(30)]
    bomb = json_schema({"type": "string", "allOf": patterns}, "schema")
    constraint = check(grammars, regex("abc")).constraint()
    assert allowed(constraint.mask(b"a")()) == {*b"b"}
    assert "too complex" in error_of(grammars, bomb)
    assert allowed(constraint.mask(b"ab")()) == {*b"c"}
    constraint.close()
    began = time.monotonic()
    assert "too complex" in error_of(grammars, bomb)
    assert time.monotonic() - began < 0.5  # the verdict was kept


BOMB = json_schema(
    {"type": "string", "allOf": [{"pattern": f"^.*b.{{{n}}}$"} for n in range(30)]}, "schema"
)


def test_a_grammar_that_is_checked_holds_up_no_others_mask(grammars):
    """Its check takes a second of processor time; masks went through the same child once."""

    async def both():
        constraint = (await grammars.check(regex("(abc)*"))).constraint()
        constraint.mask(b"")()
        checking = asyncio.ensure_future(grammars.check(BOMB))
        await asyncio.sleep(0)
        num_masks = 0
        while not checking.done():
            assert allowed(await asyncio.to_thread(constraint.mask((b"abc" * num_masks)[:40])))
            num_masks += 1
        constraint.close()
        with pytest.raises(InvalidGrammar, match="too complex"):
            await checking
        return num_masks

    assert asyncio.run(both()) > 20


def test_a_grammar_that_was_slow_to_compile_is_served_by_the_other_child(grammars, monkeypatch):
    quick = asyncio.run(grammars.check(regex("a[bc]")))
    monkeypatch.setattr("server.constrain.masks.QUICK_SECONDS", 0.0)
    slow = asyncio.run(grammars.check(regex("a[bcd]")))
    assert (quick.lane, slow.lane) == (grammars._quick, grammars._slow)
    for checked, expected in ((quick, {*b"bc"}), (slow, {*b"bcd"})):
        constraint = checked.constraint()
        assert allowed(constraint.mask(b"a")()) == expected
        constraint.close()


def test_a_grammar_whose_masks_are_slow_is_refused(grammars):
    assert "a step takes more than" in error_of(grammars, regex("((a{1000}){1000}){1001}"))


def test_a_mask_that_takes_too_long_ends_its_sequence_and_its_grammar_alone(grammars, monkeypatch):
    """Here its check is made to pass, and the two to share a child."""
    neighbour = check(grammars, regex("abc")).constraint()
    assert allowed(neighbour.mask(b"a")()) == {*b"b"}
    grammar = regex("((a{1000}){1000}){1000}")
    with monkeypatch.context() as patch:
        patch.setattr("server.constrain.masks.MASK_SECONDS", 10.0)
        patch.setattr("server.constrain.masks.QUICK_SECONDS", 10.0)
        hostile = check(grammars, grammar)
    assert hostile.lane is grammars._quick
    constraint = hostile.constraint()
    assert allowed(constraint.mask(b"a")()) == {EOS, OTHER_END}
    assert isinstance(constraint.failure, InvalidGrammar)
    assert allowed(neighbour.mask(b"ab")()) == {*b"c"}
    assert "a step takes more than" in error_of(grammars, grammar)
    constraint.close()
    neighbour.close()


def test_a_sequence_that_cannot_go_on_may_only_end_and_says_so(grammars):
    constraint = check(grammars, regex("abc")).constraint()
    assert allowed(constraint.mask(b"ax")()) == {EOS, OTHER_END}
    assert isinstance(constraint.failure, InvalidGrammar)
    constraint.close()
