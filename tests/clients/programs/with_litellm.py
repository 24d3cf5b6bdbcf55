"""litellm: the model is named openai/NAME for chat, text-completion-openai/NAME for completions."""

import json
import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it fetches its price list at import

import litellm

ASK = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]
SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "Lyon"]}},
    "required": ["city"],
    "additionalProperties": False,
}


def chat(url, model="openai/smollm2-135m-instruct", **more):
    own = {"api_base": f"{url}/v1", "api_key": "none", "temperature": 0, "max_tokens": 24}
    return litellm.completion(model=model, messages=ASK, **own, **more)


def test_chat(url):
    assert "Paris" in chat(url).choices[0].message.content


def test_streamed_chat(url):
    parts = [part.choices[0].delta.content or "" for part in chat(url, stream=True)]
    assert "Paris" in "".join(parts)


def test_hosted_vllm(url):
    assert "Paris" in chat(url, "hosted_vllm/smollm2-135m-instruct").choices[0].message.content


def test_JSON_schema(url):
    own = {"name": "city", "strict": True, "schema": SCHEMA}
    answer = chat(url, response_format={"type": "json_schema", "json_schema": own})
    assert json.loads(answer.choices[0].message.content)["city"] in ("Paris", "Lyon")


def test_completions(url):
    answer = litellm.text_completion(
        model="text-completion-openai/smollm2-135m-instruct",
        prompt="The capital of France is",
        api_base=f"{url}/v1",
        api_key="none",
        temperature=0,
        max_tokens=1,
    )
    assert answer.choices[0].text == " Paris"


def test_errors(url):
    try:
        chat(url, "openai/another-model")
    except litellm.NotFoundError:
        return
    raise AssertionError("another model was answered")
