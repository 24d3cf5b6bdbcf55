"""The client of text-generation-inference: its chat."""

from text_generation import Client

ASK = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]


def test_chat(url):
    answer = Client(url).chat(ASK, max_tokens=24, temperature=0.0, seed=1)
    assert "Paris" in answer.choices[0].message.content


def test_streamed_chat(url):
    parts = Client(url).chat(ASK, max_tokens=24, temperature=0.0, seed=1, stream=True)
    assert "Paris" in "".join(part.choices[0].delta.content or "" for part in parts)
