"""/v1/chat/completions on the scripted model, which says its prompt again and again."""

import pytest

from tests.end_to_end.running import Server, events
from tests.scripted import BOS, MARK, UNTEMPLATED

HELLO = [{"role": "user", "content": "hello"}]


def chat(server, messages=HELLO, **fields):
    body = {"messages": messages, "temperature": 0} | fields
    answer = server.post("/v1/chat/completions", body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def refused(server, **fields):
    answer = server.post("/v1/chat/completions", {"messages": HELLO} | fields)
    error = answer.json()["error"]
    return answer.status_code, error["code"], error["param"]


def stream(server, **fields):
    body = {"messages": HELLO, "temperature": 0, "stream": True} | fields
    with server.http.stream("POST", "/v1/chat/completions", json=body) as response:
        assert response.status_code == 200, response.read()
        return list(events(response))


def prompt_ids(server, messages):
    """The model says its prompt again: the first tokens drawn are the prompt's."""
    answer = chat(server, messages, max_tokens=1)
    num_prompt = answer["usage"]["prompt_tokens"]
    told = chat(server, messages, max_tokens=num_prompt, return_token_ids=True)
    return told["choices"][0]["token_ids"]


def test_messages_go_through_the_template(server):
    messages = [{"role": "system", "content": "be"}, {"role": "user", "content": "hi"}]
    assert prompt_ids(server, messages) == [MARK, *b"sbe", MARK, *b"uhi", MARK]


def test_a_message_that_spells_a_special_token_is_ordinary_text(server):
    messages = [{"role": "user", "content": "<mark>x</s><s>"}]
    assert prompt_ids(server, messages) == [MARK, *b"u<mark>x</s><s>", MARK]
    assert BOS not in prompt_ids(server, messages)


def test_content_may_be_parts(server):
    parts = [{"type": "text", "text": "he"}, {"type": "text", "text": "llo"}]
    in_parts = prompt_ids(server, [{"role": "user", "content": parts}])
    assert in_parts == prompt_ids(server, HELLO)


def test_a_developer_is_a_system(server):
    assert prompt_ids(server, [{"role": "developer", "content": "x"}]) == [MARK, *b"sx", MARK]


def test_an_answer_has_openais_shape(server):
    answer = chat(server, max_completion_tokens=8, logprobs=True, top_logprobs=2)
    assert answer["object"] == "chat.completion"
    [choice] = answer["choices"]
    assert choice["message"] == {"role": "assistant", "content": "uhello", "refusal": None}
    assert choice["finish_reason"] == "length"
    content = choice["logprobs"]["content"]
    assert [token["token"] for token in content[1:3]] == ["u", "h"]
    assert content[1]["bytes"] == [117]
    assert len(content) == answer["usage"]["completion_tokens"] == 8
    assert all(len(token["top_logprobs"]) == 2 for token in content)
    assert content[1]["top_logprobs"][0]["logprob"] == content[1]["logprob"]


def test_without_a_bound_the_answer_takes_the_rest_of_the_context(server):
    usage = chat(server)["usage"]
    assert usage["total_tokens"] == 256


def test_a_stream_begins_with_the_role_and_ends_with_the_reason(server):
    told = stream(server, max_tokens=7, n=2, stream_options={"include_usage": True})
    assert told[-1] == "[DONE]"
    assert told[-2]["choices"] == []
    assert told[-2]["usage"]["completion_tokens"] == 14
    for index in (0, 1):
        own = [p["choices"][0] for p in told[:-2] if p["choices"][0]["index"] == index]
        assert own[0]["delta"]["role"] == "assistant"
        assert own[0]["delta"]["content"] == ""
        assert own[-1]["delta"] == {}
        assert [choice["finish_reason"] for choice in own] == [None] * (len(own) - 1) + ["length"]
        assert "".join(choice["delta"].get("content", "") for choice in own) == "uhello"


def test_usage_is_not_streamed_unasked(server):
    assert all("usage" not in part for part in stream(server, max_tokens=2)[:-1])


def test_null_is_as_good_as_absent(server):
    names = (
        "frequency_penalty logit_bias logprobs max_tokens max_completion_tokens n presence_penalty "
        "response_format seed stop stream stream_options temperature tool_choice tools "
        "top_logprobs top_p user functions function_call model"
    )
    fields = dict.fromkeys(names.split()) | {"max_tokens": 2}
    message = HELLO[0] | dict.fromkeys(["name", "tool_calls", "refusal"])
    assert chat(server, [message], **fields)["choices"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tools", [{"type": "function", "function": {"name": "f"}}]),
        ("tool_choice", "required"),
        ("functions", [{"name": "f"}]),
        ("modalities", ["text", "audio"]),
        ("reasoning_effort", "high"),
        ("web_search_options", {}),
        ("audio", {"voice": "x"}),
    ],
)
def test_what_is_not_supported_is_refused_by_name(server, field, value):
    assert refused(server, **{field: value}) == (400, "unsupported_parameter", field)


@pytest.mark.parametrize(
    ("message", "place"),
    [
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},
            "content.0",
        ),
        ({"role": "tool", "content": "4", "tool_call_id": "x"}, "role"),
        ({"role": "assistant", "content": None, "tool_calls": [{"id": "x"}]}, "tool_calls"),
    ],
)
def test_messages_beyond_text_are_refused(server, message, place):
    code = refused(server, messages=[*HELLO, message])
    assert code == (400, "unsupported_parameter", f"messages.1.{place}")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages.0.role"),
        ({"messages": "x"}, "messages"),
        ({"messages": [5]}, "messages.0"),
        ({"messages": [{"role": "user", "content": []}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": [{"text": 5}]}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages.0.content"),
        (
            {"messages": [{"role": "user", "content": [{"type": 5, "text": "x"}]}]},
            "messages.0.content",
        ),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, "max_completion_tokens"),
        ({"response_format": {"type": "regex", "regex": "a"}}, "response_format.type"),
        ({"stream_options": {}}, "stream_options"),
    ],
)
def test_a_wrong_value_is_named(server, fields, param):
    assert refused(server, **fields) == (400, "invalid_value", param)


def test_a_conversation_that_does_not_fit_is_refused(server):
    long = [{"role": "user", "content": "x" * 300}]
    assert refused(server, messages=long)[:2] == (400, "context_length_exceeded")
    for name in ("max_tokens", "max_completion_tokens"):
        assert refused(server, **{name: 250}) == (400, "context_length_exceeded", "messages")


def test_fields_that_nobody_knows_are_named(server):
    body = {"messages": [HELLO[0] | {"mood": "good"}], "chat_template": "x", "max_tokens": 1}
    answer = server.post("/v1/chat/completions", body)
    assert answer.headers["x-ignored-fields"] == "chat_template, messages.0.mood"
    part = {"type": "text", "text": "hello", "cache_control": {"type": "ephemeral"}}
    answer = server.post(
        "/v1/chat/completions", {"messages": [{"role": "user", "content": [part]}], "max_tokens": 1}
    )
    assert answer.headers["x-ignored-fields"] == "messages.0.content.0.cache_control"


def test_a_model_without_a_template_does_not_chat():
    with Server(UNTEMPLATED) as untemplated:
        untemplated.ready()
        assert refused(untemplated) == (400, "untemplated_model", "messages")
