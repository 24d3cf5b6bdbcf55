"""Prompts found whole in the prefix cache: their answers are those of prompts that were run."""

from __future__ import annotations

import random

import pytest

from tests.end_to_end.running import Server

INTEGER = {"type": "json_schema", "json_schema": {"name": "i", "schema": {"type": "integer"}}}
# Of a prompt of 128 tokens, how many are found: all, or all but a page that has no scores yet.
WISHES = [
    ("/next-token-probabilities", {"top_k": 5, "full": "base64", "ids": [7, 5, 300]}, 128),
    ("/next-token-probabilities", {"top_k": 5, "full": "json", "temperature": 0.7}, 128),
    ("/generate", {"max_tokens": 1, "temperature": 0, "logprobs": 3}, 128),
    ("/generate", {"max_tokens": 18, "n": 3, "seed": 4, "logprobs": 2}, 128),
    ("/generate", {"max_tokens": 4, "top_p": 0.9, "seed": 1, "logprobs_mode": "processed"}, 128),
    ("/generate", {"max_tokens": 5, "seed": 2, "response_format": INTEGER}, 128),
    ("/generate", {"max_tokens": 3, "temperature": 0, "prompt_logprobs": 2}, 112),
    ("/score", {"continuations": [[3, 4], [3, 5], [9]]}, 128),
]


def ask(server: Server, path: str, prompt: list[int], **fields) -> dict:
    answer = server.post(path, {"prompt": [prompt], **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()


def told(answer: dict) -> dict:
    """What is not of this call alone."""
    return {key: answer.get(key) for key in ("choices", "prompts", "results")}


@pytest.mark.parametrize(("path", "fields", "num_found"), WISHES)
def test_a_prompt_that_ends_with_a_cached_page_is_answered_bit_for_bit(
    real, path, fields, num_found
):
    prompt = random.Random(repr((path, fields))).choices(range(1000, 9000), k=128)
    run, again = (ask(real, path, prompt, **fields) for _ in range(2))
    assert run["usage"]["cached_tokens"] == 0
    assert again["usage"]["cached_tokens"] == num_found
    assert told(again) == told(run)
    for length, expected in ((127, 112), (112, 112)):
        cut = ask(real, path, prompt[:length], **fields)
        if "prompt_logprobs" not in fields:
            assert cut["usage"]["cached_tokens"] == expected
        fresh = ask(real, path, prompt[:length], **fields)
        assert told(cut) == told(fresh)


def test_a_cached_prompt_is_answered_without_the_cache_as_with_it(server):
    with Server("--prefix-cache", "off") as without:
        without.ready()
        for _ in range(2):
            answers = [ask(each, "/generate", [9] * 32, seed=3) for each in (server, without)]
            assert told(answers[0]) == told(answers[1])
            assert answers[1]["usage"]["cached_tokens"] == 0
    assert answers[0]["usage"]["cached_tokens"] == 32
