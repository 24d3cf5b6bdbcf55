"""
The requests of vLLM's `bench serve`, as it sends them, and what it reads of the answers. vLLM is
too large to install for that.
"""

import pytest

from tests.end_to_end.running import events

OPTIONS = {"include_usage": True}
COMPLETION = {
    "model": "echo",
    "prompt": "abc",
    "repetition_penalty": 1.0,
    "max_tokens": 8,
    "logprobs": None,
    "stream": True,
    "stream_options": OPTIONS,
    "ignore_eos": True,
    "temperature": 0.0,
}
CHAT = {
    "model": "echo",
    "messages": [{"role": "user", "content": [{"type": "text", "text": "abc"}]}],
    "max_completion_tokens": 8,
    "stream": True,
    "stream_options": OPTIONS,
    "ignore_eos": True,
    "temperature": 0.0,
}


@pytest.mark.parametrize(
    ("path", "body", "text"),
    [("/v1/completions", COMPLETION, "abcabc"), ("/v1/chat/completions", CHAT, "uabcu")],
)
def test_chunks_have_text_and_the_last_has_the_count(server, path, body, text):
    headers = {"Authorization": "Bearer secret"}
    with server.http.stream("POST", path, json=body, headers=headers) as answer:
        assert answer.status_code == 200, answer.read()
        *chunks, usage, done = events(answer)
    assert done == "[DONE]"
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 8
    told = [chunk["choices"][0] for chunk in chunks]
    texts = [c["text"] if "text" in c else c["delta"].get("content", "") for c in told]
    assert "".join(texts) == text  # and special tokens, which have none
    assert all(chunk["usage"] is None for chunk in chunks)
