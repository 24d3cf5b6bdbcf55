import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.api import encode
from tests.server.api.test_body import JSON


@given(JSON)
def test_an_answer_in_parts_is_the_answer(value):
    assert json.loads("".join(encode.encode(value))) == value


def test_a_large_answer_is_encoded_in_small_parts_and_says_the_same():
    value = {"a": list(range(100_000)), "b": [{"c": [0.1] * 50, "d": "é"}] * 3000, "e": [], "f": {}}
    parts = list(encode.encode(value))
    assert "".join(parts) == encode.dumps(value)
    assert max(map(len, parts)) < 30 * encode.LARGE
    assert b"".join(encode.encode_bytes(value)).decode() == encode.dumps(value)


@given(st.floats(allow_nan=False, allow_infinity=False, width=32))
def test_a_float_passes_untouched(value):
    assert json.loads(encode.dumps(encode.finite(value))) == value


def test_minus_infinity_has_a_number():
    assert encode.finite(float("-inf")) == -9999.0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [float("-inf")]])
def test_what_json_has_no_word_for_cannot_leave(value):
    with pytest.raises(ValueError):
        encode.dumps(value)
