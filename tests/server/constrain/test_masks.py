"""Grammars on a vocabulary of single bytes: what may follow, what is refused, what is survived."""

import asyncio
import time

import pytest

from server.constrain.grammar import Grammar, choice, json_schema
from server.errors import InvalidGrammar
from tests.scripted import EOS, VOCAB_SIZE
from tests.server.constrain.following import OTHER_END, after, allowed, check, error_of


def regex(source):
    return Grammar("regex", source, "regex")


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
