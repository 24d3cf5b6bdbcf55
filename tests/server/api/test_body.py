import asyncio
import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.api.body import BYTES_A_VALUE, MAX_DEPTH, is_json, parse_json, read_body
from server.errors import BadRequest, BodyTooLarge, InvalidJson, UnsupportedMediaType

VALUES = 1000
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(JSON, st.booleans())
def test_what_json_writes_is_read_as_json_reads_it(value, is_ascii):
    raw = json.dumps(value, ensure_ascii=is_ascii).encode()
    assert parse_json(raw, VALUES) == json.loads(raw)


@given(
    st.binary(max_size=60) | st.text('{}[]",:\\u0019eE+-.dntrfalse ', max_size=40).map(str.encode)
)
def test_any_bytes_are_a_value_or_a_refusal(raw):
    try:
        value = parse_json(raw, VALUES)
    except BadRequest:
        return
    assert json.loads(raw) == value


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (b'{"a": NaN}', "NaN"),
        (b'{"a": Infinity}', "Infinity"),
        (b'{"a": -Infinity}', "-Infinity"),
        (b'{"a": 1e999}', "1e999"),
        (b'{"a": -1e999}', "float64"),
        (b'{"a": ' + b"9" * 41 + b"}", "41 digits"),
        (b'{"a": 1, "a": 1}', "'a' is given twice"),
        (b'{"a": {"b": 1, "b": 2}}', "'b' is given twice"),
        (b"\xff{}", "byte 0"),
        (b'{"a": "\xed\xa0\x80"}', "UTF-8"),
        (b"", "Expecting value"),
        (b"{", "JSON"),
        (b"[1,]", "JSON"),
        (b'{"a": "\n"}', "control character"),
        (b"\xef\xbb\xbf{}", "JSON"),
        (b"[" * 65 + b"]" * 65, f"deeper than the {MAX_DEPTH}"),
        (b"[" * 100_000, "deeper"),
        (b"[" + b"1," * VALUES + b"1]", f"more than the {VALUES}"),
    ],
)
def test_what_is_not_json_is_refused_by_what_is_wrong(raw, told):
    with pytest.raises(InvalidJson) as refused:
        parse_json(raw, VALUES)
    assert told.lower() in refused.value.message.lower()


@pytest.mark.parametrize(
    "raw",
    [b'"\\ud800"', b'{"\\uDFFF": 1}', b'[{"a": ["\\ud83d x"]}]', b'"\\ude00\\ud83d"'],
)
def test_a_lone_surrogate_is_refused_wherever_it_is(raw):
    with pytest.raises(BadRequest, match="surrogate"):
        parse_json(raw, VALUES)


def test_a_pair_of_surrogates_is_a_character():
    assert parse_json(b'"\\ud83d\\ude00"', VALUES) == "😀"


def test_brackets_and_commas_within_strings_do_not_count():
    text = '[{,"\\' * 5000
    assert parse_json(json.dumps(text).encode(), VALUES) == text


def test_a_hostile_body_costs_less_than_fifty_megabytes():
    """A list costs 64 bytes for each 3 of its text."""
    limit = 2**20  # a quarter of the default, and so a quarter of the memory: tracing it is slow
    bodies = [
        b"[" + b"[]," * (limit // 3 - 1) + b"1]",
        b"[" + b'"ab",' * (limit // 5 - 1) + b"1]",
        b"{" + b",".join(b'"%d":1' % i for i in range(75_000)) + b"}",
        b"[" + b"1," * (limit // 2 - 2) + b"1]",
    ]
    for raw in bodies:
        tracemalloc.start()
        with pytest.raises(InvalidJson, match="values"):
            parse_json(raw, limit // BYTES_A_VALUE)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 50e6 / 4


def test_the_largest_body_that_is_allowed_costs_less_than_fifty_megabytes():
    limit = 2**20  # a quarter of the default, and so a quarter of the memory: tracing it is slow
    num_members = limit // BYTES_A_VALUE // 3 - 1
    raw = b"{" + b",".join(b'"%040d":1' % i for i in range(num_members)) + b"}"
    assert len(raw) < limit
    tracemalloc.start()
    assert len(parse_json(raw, limit // BYTES_A_VALUE)) == num_members
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50e6 / 4


def read(headers, *parts, limit=10):
    messages = [
        {"type": "http.request", "body": part, "more_body": i < len(parts) - 1}
        for i, part in enumerate(parts)
    ]

    async def receive():
        return messages.pop(0)

    return asyncio.run(read_body({"headers": headers}, receive, limit)), messages


TYPE = (b"content-type", b"application/json")


def test_a_body_in_parts_is_read_whole():
    assert read([TYPE], b"[1", b",", b"2]") == (b"[1,2]", [])


def test_reading_ends_as_soon_as_the_body_is_too_large():
    messages = iter([b"12345", b"678901", b"never read"])

    async def receive():
        return {"type": "http.request", "body": next(messages), "more_body": True}

    with pytest.raises(BodyTooLarge, match="10"):
        asyncio.run(read_body({"headers": [TYPE]}, receive, 10))
    assert next(messages) == b"never read"


def test_a_declared_length_is_refused_before_anything_is_read():
    with pytest.raises(BodyTooLarge, match="11 bytes"):
        read([TYPE, (b"content-length", b"11")])


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("application/json", True),
        ("Application/JSON; charset=UTF-8", True),
        ('application/json;charset="utf-8"', True),
        ("application/json; charset=latin-1", False),
        ("application/json; charset=utf-16", False),
        ("application/jsonp", False),
        ("text/plain", False),
        ("", False),
    ],
)
def test_only_json_in_utf8_is_json(content_type, expected):
    assert is_json(content_type) is expected


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"content-type", b"text/plain")],
        [TYPE, TYPE],
        [TYPE, (b"content-encoding", b"gzip")],
    ],
)
def test_another_media_type_is_refused(headers):
    with pytest.raises(UnsupportedMediaType):
        read(headers, b"{}")
