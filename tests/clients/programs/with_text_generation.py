"""
The client of text-generation-inference: its chat. It cannot read OpenAI's streams: it wants a role
in every event, and JSON where `[DONE]` stands.
"""

from text_generation import Client

ASK = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]


def test_chat(url):
    answer = Client(url).chat(ASK, max_tokens=24, temperature=0.0, seed=1)
    assert "Paris" in answer.choices[0].message.content
