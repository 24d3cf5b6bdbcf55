"""Every row of the error table, through the socket."""

import json

import pytest

from tests.end_to_end.running import RawAnswer, check_error
from tests.scripted import CONTEXT, VOCAB_SIZE

LONG = {"prompt": "a" * (CONTEXT + 1), "add_special_tokens": False}
T0 = {"prompt": "a", "temperature": 0}
MANY = {"prompt": "a", "logprobs": 20, "n": 64, "max_tokens": 250}
CASES = [
    ("/generate", {"prompt": "a", "top_p": 2}, "invalid_value", "top_p"),
    ("/generate", {"prompt": "a", "bogus": 1}, "unknown_field", "bogus"),
    ("/generate", {}, "invalid_value", "prompt"),
    ("/generate", [], "invalid_value", None),
    ("/generate", {"prompt": 5}, "invalid_value", "prompt"),
    ("/generate", {"prompt": "a", "response_format": {}}, "invalid_value", "response_format.type"),
    ("/generate", LONG, "context_length_exceeded", "prompt"),
    ("/generate", {"prompt": "a", "max_tokens": CONTEXT}, "context_length_exceeded", "prompt"),
    ("/generate", {"prompt": "x" * 10_000}, "context_length_exceeded", "prompt"),
    ("/generate", {"prompt": []}, "empty_prompt", "prompt"),
    ("/generate", {"prompt": [[]]}, "empty_prompt", "prompt.0"),
    ("/generate", {"prompt": [1, VOCAB_SIZE]}, "invalid_token", "prompt.1"),
    ("/generate", {"prompt": [[1], [2, -1]]}, "invalid_token", "prompt.1.1"),
    ("/generate", {"prompt": [10**30]}, "invalid_token", "prompt.0"),
    ("/generate", {"prompt": "a", "stop_token_ids": [VOCAB_SIZE]}, "invalid_token", None),
    ("/generate", {"prompt": "a", "logit_bias": {"260": 1}}, "invalid_token", None),
    ("/generate", {"prompt": "a", "allowed_token_ids": [-1]}, "invalid_token", None),
    ("/generate", {"prompt": "a", "allowed_token_ids": []}, "invalid_value", "allowed_token_ids"),
    ("/generate", {"prompt": "a", "n": 65}, "invalid_value", "n"),
    ("/generate", {"prompt": ["a"] * 10, "n": 10}, "invalid_value", "n"),
    ("/generate", {"prompt": ["a"] * 129}, "invalid_value", "prompt"),
    ("/generate", {"prompt": "a", "logprobs": 21}, "invalid_value", "logprobs"),
    ("/generate", {"prompt": "a", "prompt_logprobs": 21}, "invalid_value", "prompt_logprobs"),
    ("/generate", MANY, "invalid_value", "logprobs"),
    ("/generate", {"prompt": "a", "top_k": VOCAB_SIZE + 1}, "invalid_value", "top_k"),
    ("/generate", {"prompt": "a", "min_tokens": 9, "max_tokens": 8}, "invalid_value", "min_tokens"),
    ("/next-token-probabilities", {"prompt": "a", "texts": ["ab"]}, "invalid_value", "texts.0"),
    ("/next-token-probabilities", {"prompt": "a", "texts": [""]}, "invalid_value", "texts.0"),
    ("/next-token-probabilities", {"prompt": "a", "top_k": 261}, "invalid_value", "top_k"),
    ("/next-token-probabilities", {"prompt": "a", "ids": [260]}, "invalid_token", None),
    ("/next-token-probabilities", T0, "invalid_value", "temperature"),
    ("/next-token-probabilities", {"prompt": "a", "full": True}, "invalid_value", "full"),
    ("/next-token-probabilities", {"prompt": "a", "top_k": -1}, "invalid_value", "top_k"),
    ("/next-token-probabilities", {"prompt": "a", "temperature": "1"}, "invalid_value", None),
    ("/score", {"prompt": "a"}, "invalid_value", "continuations"),
    ("/score", {"prompt": "a", "continuations": []}, "invalid_value", "continuations"),
    ("/score", {"prompt": "a", "continuations": "b"}, "invalid_value", "continuations"),
    ("/score", {"prompt": "a", "continuations": [1, 2]}, "invalid_value", "continuations.0"),
    ("/score", {"prompt": "a", "continuations": ["b", ""]}, "invalid_value", "continuations.1"),
    ("/score", {"prompt": "a", "continuations": ["b", []]}, "invalid_value", "continuations.1"),
    ("/score", {"prompt": "a", "continuations": ["b"] * 5000}, "invalid_value", "continuations"),
    ("/score", {"prompt": "a", "continuations": [[VOCAB_SIZE]]}, "invalid_token", None),
    ("/score", {"prompt": "a", "continuations": [[-1]]}, "invalid_token", "continuations.0.0"),
    ("/score", {"prompt": "a", "continuations": [[True]]}, "invalid_value", "continuations.0.0"),
    ("/score", {"prompt": [], "continuations": ["b"]}, "empty_prompt", "prompt"),
    ("/score", {"prompt": [VOCAB_SIZE], "continuations": ["b"]}, "invalid_token", "prompt.0"),
    ("/score", {"prompt": "a", "continuations": ["b" * 300]}, "context_length_exceeded", None),
    ("/score", {"prompt": "a", "continuations": ["b"], "normalize": "x"}, "invalid_value", None),
    ("/score", {"prompt": "a", "continuations": ["b"], "baseline": 5}, "invalid_value", "baseline"),
    ("/score", {"prompt": "a", "continuations": ["b"], "baseline": [260]}, "invalid_token", None),
    ("/score", {"prompt": "a", "continuations": ["b"], "top": 1}, "unknown_field", "top"),
    ("/score", {"prompt": "a", "continuations": [[259]], "normalize": "bytes"}, "invalid_value",
     "continuations.0"),
    ("/surprisal", {}, "invalid_value", "text"),
    ("/surprisal", {"text": ""}, "empty_prompt", "text"),
    ("/surprisal", {"text": []}, "empty_prompt", "text"),
    ("/surprisal", {"text": ["a", ""]}, "empty_prompt", "text.1"),
    ("/surprisal", {"text": [1, 2]}, "invalid_value", "text"),
    ("/surprisal", {"text": ["a"] * 129}, "invalid_value", "text"),
    ("/surprisal", {"text": "a", "unit": "bit"}, "invalid_value", "unit"),
    ("/surprisal", {"text": "a", "by": "line"}, "invalid_value", "by"),
    ("/surprisal", {"text": "a", "bos": 1}, "invalid_value", "bos"),
    ("/surprisal", {"text": "a", "window": 1}, "invalid_value", "window"),
    ("/surprisal", {"text": "a", "window": CONTEXT + 1}, "invalid_value", "window"),
    ("/surprisal", {"text": "a", "stride": 0}, "invalid_value", "stride"),
    ("/surprisal", {"text": "a", "window": 8, "stride": 9}, "invalid_value", "stride"),
    ("/surprisal", {"text": "a", "prompt": "b"}, "unknown_field", "prompt"),
    ("/tokenize", {"prompt": ["a"]}, "invalid_value", "prompt"),
    ("/detokenize", {"tokens": [VOCAB_SIZE]}, "invalid_token", "tokens.0"),
    ("/detokenize", {"tokens": "a"}, "invalid_value", "tokens"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "body", "code", "param"), CASES)
def test_a_request_at_fault_is_told_what_is_wrong(server, path, body, code, param):
    error = check_error(server.post(path, body), 400, "invalid_request_error", code)
    if param is not None:
        assert error["param"] == param
    assert server.http.get("/ready").status_code == 200


def test_a_stream_that_has_not_begun_is_refused_in_the_same_shape(server):
    body = {"prompt": "a", "stream": True, "max_tokens": CONTEXT}
    check_error(
        server.post("/generate", body), 400, "invalid_request_error", "context_length_exceeded"
    )
    failing = {"prompt": "a\x01", "stream": True}
    check_error(server.post("/generate", failing), 500, "server_error", "internal_error")


def test_messages_name_the_value_and_the_limit(server):
    for body, numbers in [
        ({"prompt": "a", "n": 65}, ("65", "64")),
        ({"prompt": [1, 999]}, ("999", "259")),
        ({"prompt": "a", "max_tokens": 300}, ("300", "256")),
        ({"prompt": "a", "stop": ["x"] * 17}, ("17", "16")),
        ({"prompt": "a", "temperature": 101}, ("101", "100")),
    ]:
        message = server.post("/generate", body).json()["error"]["message"]
        assert all(number in message for number in numbers), message


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nonsense",
        b'{"prompt": NaN}',
        b'{"prompt": "a", "temperature": 1e999}',
        b'{"prompt": "a", "temperature": Infinity}',
        b'{"prompt": "a", "top_k": 1, "temperature": NaN}',
        b'{"prompt": "a", "prompt": "b"}',
        b'{"prompt": "\xff"}',
        b"[" * 50_000,
        b'{"prompt": "a", "seed": ' + b"1" * 5000 + b"}",
    ],
)
def test_what_is_not_json_is_invalid_json(server, body):
    answer = server.http.post(
        "/generate", content=body, headers={"content-type": "application/json"}
    )
    check_error(answer, 400, "invalid_request_error", "invalid_json")


@pytest.mark.parametrize(
    "body", [b'{"prompt": "\\ud800"}', b'{"\\udc00": 1}', b'{"stop": ["\\ud83d"]}']
)
def test_a_lone_surrogate_is_a_value_at_fault(server, body):
    answer = server.http.post(
        "/generate", content=body, headers={"content-type": "application/json"}
    )
    check_error(answer, 400, "invalid_request_error", "invalid_value")


def test_the_nul_character_and_escaped_pairs_are_characters(server):
    prompt = b'"\\u0000\\ud83d\\ude00"'
    rest = b'"max_tokens": 5, "temperature": 0, "add_special_tokens": false'
    raw = b'{"prompt": ' + prompt + b", " + rest + b"}"
    answer = server.http.post(
        "/generate", content=raw, headers={"content-type": "application/json"}
    )
    assert answer.json()["choices"][0]["text"] == "\0😀"


def test_no_path_and_no_method(server):
    check_error(server.http.get("/nowhere"), 404, "invalid_request_error", "not_found")
    check_error(server.http.post("/generate/"), 404, "invalid_request_error", "not_found")
    refused = server.http.get("/generate")
    check_error(refused, 405, "invalid_request_error", "method_not_allowed")
    assert refused.headers["allow"] == "POST"
    refused = server.http.delete("/health")
    check_error(refused, 405, "invalid_request_error", "method_not_allowed")
    assert refused.headers["allow"] == "GET, HEAD"
    assert server.http.options("/generate").status_code == 405


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "text/plain"},
        {"content-type": "application/json; charset=latin-1"},
        {"content-type": "application/json", "content-encoding": "gzip"},
        {},
    ],
)
def test_another_kind_of_body_is_unsupported(server, headers):
    answer = server.http.post("/generate", content=b'{"prompt": "a"}', headers=headers)
    check_error(answer, 415, "invalid_request_error", "unsupported_media_type")


def test_a_body_too_large_is_refused_by_its_length(server):
    answer = server.post("/generate", {"prompt": "a" * 2**20})
    error = check_error(answer, 413, "invalid_request_error", "body_too_large")
    assert "1048576" in error["message"]


def test_a_chunked_body_too_large_is_refused_while_it_arrives(server):
    def parts():
        yield b'{"prompt": "'
        for _ in range(60):
            yield b"a" * 2**20

    answer = server.http.post(
        "/generate", content=parts(), headers={"content-type": "application/json"}
    )
    check_error(answer, 413, "invalid_request_error", "body_too_large")
    assert server.http.get("/health").status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "10.0.0.1", "a b"])
def test_another_host_is_not_allowed(server, host):
    for path in ("/health", "/metrics", "/nowhere"):
        answer = server.http.get(path, headers={"host": host})
        check_error(answer, 421, "invalid_request_error", "host_not_allowed")
    assert server.http.get("/health", headers={"host": "localhost"}).status_code == 200


def test_a_failed_step_is_an_internal_error_and_the_next_request_is_answered(server):
    answer = server.post("/generate", {"prompt": "a\x01"})
    error = check_error(answer, 500, "server_error", "internal_error")
    assert "told to fail" not in error["message"]
    assert server.generate("ab", max_tokens=1, temperature=0)["choices"]


def test_a_failure_within_a_stream_is_an_event_and_the_end(server):
    prompt = "a" * 20  # the model goes wrong at the byte that it is told to say next
    body = {"prompt": prompt, "stream": True, "logit_bias": {"1": 100}, "max_tokens": 4}
    with server.http.stream("POST", "/generate", json=body) as response:
        lines = [line for line in response.iter_lines() if line]
    assert response.status_code == 200
    assert "[DONE]" not in lines[-1]
    error = json.loads(lines[-1].removeprefix("data: "))["error"]
    assert (error["type"], error["code"]) == ("server_error", "internal_error")
    assert len(lines) > 1


def test_a_raw_answer_is_read(server):
    answer = server.raw(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert isinstance(answer, RawAnswer)
    assert (answer.status, json.loads(answer.body)) == (200, {"status": "ok"})
