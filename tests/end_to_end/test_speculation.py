"""The default checkpoint through a socket: guessing changes no answer, and is used."""

import re

import pytest

from tests.end_to_end.running import TIEDLM, Server, events

LIST = "apples, pears, plums, apples, pears, plums, apples, pears,"
CODE = "def area(width, height):\n    return width * height\n\ndef area(width, height):\n    return"
CALLS = [
    {"prompt": LIST, "temperature": 0, "logprobs": 3},
    {"prompt": CODE, "temperature": 0, "logprobs": 2, "logprobs_mode": "processed"},
    {"prompt": LIST, "temperature": 0.3, "seed": 1, "n": 2, "logprobs": 1},
    {"prompt": LIST, "temperature": 0.4, "top_p": 0.9, "seed": 7},
    {"prompt": [LIST, CODE], "temperature": 0, "stop": "pears, plums, apples,"},
    {"prompt": LIST, "temperature": 0, "repetition_penalty": 1.05, "logprobs": 0},
    {"prompt": LIST, "temperature": 0, "logit_bias": {"28": -1.5}, "min_tokens": 9, "logprobs": 0},
    {"prompt": LIST, "temperature": 0, "prompt_logprobs": 1},
]


def what_counts(answer):
    return answer["choices"], answer.get("prompts"), answer["usage"]["completion_tokens"]


def streamed(server, call):
    """{choice: (token ids, tokens with their log-probabilities, ending)}, joined over events."""
    found = {}
    with server.http.stream("POST", "/generate", json=call | {"stream": True}) as response:
        parts = [part for part in events(response) if part != "[DONE]"]
    for choice in (choice for part in parts for choice in part["choices"]):
        assert len(choice["token_ids"]) <= 1  # however many a step brought
        ids, tokens, _ = found.get(choice["index"], ([], [], None))
        told = (ids + choice["token_ids"], tokens + choice.get("tokens", []))
        found[choice["index"]] = (*told, choice["finish_reason"])
    return found


def accepted(server):
    text = server.http.get("/metrics").text
    return float(re.search(r"^tiedlm_draft_tokens_accepted_total (\S+)", text, re.MULTILINE)[1])


@pytest.fixture(scope="module")
def without():
    """What each call is answered by a server that does not guess."""
    flags = ("--speculation", "off", "--kv-cache-tokens", "2048")
    with Server(*flags, command=[*TIEDLM, "serve"]) as server:
        server.ready(600)
        assert server.http.get("/props").json()["limits"]["speculation"] == "off"
        answers = [ask(server, call) for call in CALLS]
        assert accepted(server) == 0
    return answers


def ask(server, call):
    answer = server.post("/generate", call | {"max_tokens": 48})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_no_answer_changes_and_guesses_are_right(without):
    with Server("--kv-cache-tokens", "2048", command=[*TIEDLM, "serve"]) as server:
        server.ready(600)
        assert server.http.get("/props").json()["limits"]["speculation"] == "auto"
        for call, expected in zip(CALLS, without, strict=True):
            before = accepted(server)
            assert what_counts(ask(server, call)) == what_counts(expected)
            assert (accepted(server) > before) == ("repetition_penalty" not in call), call
        for call, expected in zip(CALLS, without, strict=True):
            parts = streamed(server, call | {"max_tokens": 48})
            for choice in expected["choices"]:
                told = (choice["token_ids"], choice.get("tokens", []), choice["finish_reason"])
                assert parts[choice["index"]] == told
