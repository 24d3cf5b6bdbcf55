import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from server.api.faults import error_body, error_headers, from_validation
from server.api.schemas.native import GenerateBody
from server.errors import BadRequest, QueueFull, ServeError, Unauthorized

ANY_TEXT = st.text(st.characters(exclude_categories=[]), max_size=3000)


@given(ANY_TEXT, ANY_TEXT)
def test_an_error_body_is_small_and_of_the_documented_shape(message, param):
    body = error_body(BadRequest(message * 3, param))
    error = json.loads(body)["error"]
    assert len(body) <= 8192
    assert list(error) == ["message", "type", "param", "code"]


def test_every_error_of_the_tree_has_its_own_status_and_code():
    def leaves(kind):
        return [kind] + [leaf for child in kind.__subclasses__() for leaf in leaves(child)]

    for kind in leaves(ServeError):
        error = json.loads(error_body(kind("why")))["error"]
        assert 400 <= kind.status <= 599
        assert error == {"message": "why", "type": kind.type, "param": None, "code": kind.code}


def test_who_should_come_back_is_told_when():
    assert int(error_headers(QueueFull("full"))["retry-after"]) >= 1
    assert error_headers(Unauthorized("no"))["www-authenticate"] == "Bearer"


def refusal(**fields):
    with pytest.raises(ValidationError) as refused:
        GenerateBody.model_validate(fields)
    return from_validation(refused.value.errors())


def test_a_message_has_the_value_and_the_limit():
    told = refusal(prompt="a", top_p=1.5)
    assert told.param == "top_p"
    assert "1.5" in told.message
    assert "less than or equal to 1" in told.message


def test_an_unknown_field_is_named_before_all_else():
    told = refusal(prompt="a", top_p=1.5, max_token=3)
    assert (told.code, told.param) == ("unknown_field", "max_token")


def test_a_missing_prompt_is_named():
    assert "prompt is required" in refusal().message


def test_a_huge_value_is_not_echoed_whole():
    assert len(refusal(prompt="a", temperature="x" * 10**6).message) < 400
    assert "a list of 100000" in refusal(prompt="a", temperature=[1] * 100_000).message
