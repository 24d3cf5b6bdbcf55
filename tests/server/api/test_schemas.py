import pytest
from pydantic import ValidationError

from server.api.schemas.native import DetokenizeBody, GenerateBody, ProbabilitiesBody
from server.errors import BadRequest, EmptyPrompt, UnknownField


def generate(**fields):
    return GenerateBody.model_validate({"prompt": "a"} | fields)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a", ("a",)),
        (["a", "b"], ("a", "b")),
        ([1, 2], ((1, 2),)),
        ([[1], [2, 3]], ((1,), (2, 3))),
        ("", ("",)),
        ([""], ("",)),
    ],
)
def test_a_prompt_has_four_forms(prompt, expected):
    assert generate(prompt=prompt).prompt == expected


@pytest.mark.parametrize("prompt", [[], [[]], [[1], []]])
def test_an_empty_list_is_no_prompt(prompt):
    with pytest.raises(EmptyPrompt):
        generate(prompt=prompt)


@pytest.mark.parametrize(
    "prompt", [None, 5, True, {}, [1, "a"], ["a", 1], [[1], "a"], [True], [[True]], [1.0], [None]]
)
def test_nothing_else_is_a_prompt(prompt):
    with pytest.raises(BadRequest) as refused:
        generate(prompt=prompt)
    assert refused.value.param.startswith("prompt")


WRONG = {
    "max_tokens": [-1, 2**31, True, "5", 5.0, None],
    "temperature": [-0.1, 100.5, "1", True, None, float("nan"), 1e-9],
    "top_k": [-1, 1.0, True],
    "top_p": [0, 1.01, "1", None],
    "min_p": [-0.1, 1.1],
    "repetition_penalty": [0, -1, 101],
    "presence_penalty": [-2.1, 2.1],
    "frequency_penalty": [-2.1, 2.1],
    "seed": [2**63, -(2**63) - 1, 1.0, "1", True],
    "n": [0, -1, True, None],
    "stop": ["", ["a", ""], ["a"] * 17, "x" * 1025, ["é" * 513], 5, [5], [None], {}],
    "stop_token_ids": [None, 5, ["1"], [True], [1.0], "1"],
    "include_stop": [1, "true", None],
    "min_tokens": [-1],
    "ignore_eos": [0, None],
    "logit_bias": [
        {"1": 101}, {"1": -101}, {"-1": 1}, {"01": 1}, {"a": 1}, {"1": True}, {"1": "1"},
        {"1": None}, {" 1": 1}, {"٣": 1}, [1], None, {str(i): 1 for i in range(1025)},
    ],
    "allowed_token_ids": [5, ["1"], [True]],
    "logprobs": [-1, True, 1.0, "1"],
    "prompt_logprobs": [-1, True],
    "logprobs_mode": ["RAW", None, 1],
    "add_special_tokens": [1, "yes", None],
    "stream": [1, "true", None],
}  # fmt: skip


@pytest.mark.parametrize(("field", "value"), [(f, v) for f, vs in WRONG.items() for v in vs])
def test_a_value_of_another_type_or_beyond_its_bounds_is_refused(field, value):
    with pytest.raises((ValidationError, BadRequest)):
        generate(**{field: value})


@pytest.mark.parametrize("value", [0, 1, 100, 0.5, 1e-6])
def test_an_integer_is_a_valid_float(value):
    assert generate(temperature=value).temperature == value


@pytest.mark.parametrize(
    ("value", "expected"), [(None, ()), ("a", ("a",)), (["a", "bc"], ("a", "bc")), ([], ())]
)
def test_stop_is_null_a_string_or_a_list(value, expected):
    assert generate(stop=value).stop == expected


@pytest.mark.parametrize(
    ("value", "param"),
    [("", "stop"), ("x" * 1025, "stop"), ([""], "stop.0"), (["a", ""], "stop.1")],
)
def test_a_stop_string_that_is_too_long_or_empty_is_named_as_it_was_sent(value, param):
    with pytest.raises(BadRequest, match=rf"^{param} is") as refused:
        generate(stop=value)
    assert refused.value.param == param


def test_logit_bias_has_the_ids_as_its_keys():
    assert generate(logit_bias={"5": -100, "0": 0.5}).logit_bias == ((5, -100.0), (0, 0.5))


@pytest.mark.parametrize("field", ["seed", "stop", "allowed_token_ids", "logprobs"])
def test_null_is_the_default_where_null_is_documented(field):
    assert generate(**{field: None}) == generate()


def test_a_field_that_is_known_but_not_done_is_refused_by_name():
    assert generate(response_format=None).response_format is None
    assert generate(response_format={"type": "json_object"}).response_format.kind == "json_schema"
    with pytest.raises(UnknownField, match=r"response_format\.schema"):
        generate(response_format={"type": "json_object", "schema": {}})


def test_full_is_false_or_one_of_two_words():
    for full in (False, "json", "base64"):
        assert ProbabilitiesBody.model_validate({"prompt": "a", "full": full}).full == full
    for full in (True, 0, None, "npy", []):
        with pytest.raises(BadRequest, match="full"):
            ProbabilitiesBody.model_validate({"prompt": "a", "full": full})


def test_tokens_are_a_list_of_ids():
    assert DetokenizeBody.model_validate({"tokens": [1, 2]}).tokens == (1, 2)
    assert DetokenizeBody.model_validate({"tokens": []}).tokens == ()
