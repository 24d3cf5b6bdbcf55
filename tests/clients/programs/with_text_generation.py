"""
The client of text-generation-inference: its chat. It cannot read OpenAI's streams: it parses all
events as JSON, `[DONE]` too, and wants a role in each, which OpenAI's own SDK would join to
"assistantassistant".
"""

from text_generation import Client

ASK = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]


def test_chat(url):
    answer = Client(url, timeout=60).chat(ASK, max_tokens=24, temperature=0.0, seed=1)
    assert "Paris" in answer.choices[0].message.content
