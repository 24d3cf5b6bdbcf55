"""huggingface_hub's InferenceClient: chat by base_url. HF_HUB_OFFLINE refuses even loopback."""

import json

from huggingface_hub import InferenceClient

ASK = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]
SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "Lyon"]}},
    "required": ["city"],
    "additionalProperties": False,
}


def chat(url, **more):
    with InferenceClient(base_url=url, api_key="none") as client:  # one that is let go ends streams
        told = client.chat_completion(
            ASK, model="smollm2-135m-instruct", max_tokens=24, temperature=0, **more
        )
        return list(told) if "stream" in more else told


def test_chat(url):
    assert "Paris" in chat(url).choices[0].message.content


def test_streamed_chat(url):
    parts = [part.choices[0].delta.content or "" for part in chat(url, stream=True)]
    assert "Paris" in "".join(parts)


def test_JSON_schema(url):
    own = {"name": "city", "strict": True, "schema": SCHEMA}
    answer = chat(url, response_format={"type": "json_schema", "json_schema": own})
    assert json.loads(answer.choices[0].message.content)["city"] in ("Paris", "Lyon")


def test_log_probabilities(url):
    content = chat(url, logprobs=True, top_logprobs=2).choices[0].logprobs.content
    assert len(content[0].top_logprobs) == 2
