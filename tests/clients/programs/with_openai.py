"""OpenAI's SDK on the real checkpoint; test_openai_sdk.py has every call and error."""

import asyncio
from typing import Literal

import openai
from pydantic import BaseModel

MODEL = "smollm2-135m-instruct"
ASK = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]


class City(BaseModel):
    name: Literal["Paris", "Lyon"]
    is_capital: bool


def client(url):
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


def test_chat(url):
    answer = client(url).chat.completions.create(model=MODEL, messages=ASK, temperature=0)
    assert "Paris" in answer.choices[0].message.content


def test_streamed_chat(url):
    with client(url).chat.completions.stream(model=MODEL, messages=ASK, temperature=0) as stream:
        assert "content.delta" in {event.type for event in stream}
        assert "Paris" in stream.get_final_completion().choices[0].message.content


def test_completions(url):
    answer = client(url).completions.create(
        model=MODEL, prompt="The capital of France is", max_tokens=1, temperature=0, logprobs=2
    )
    assert answer.choices[0].text == " Paris"
    assert len(answer.choices[0].logprobs.token_logprobs) == 1


def test_parsing_into_a_class(url):
    parsed = client(url).chat.completions.parse(
        model=MODEL, messages=ASK, response_format=City, temperature=0
    )
    assert isinstance(parsed.choices[0].message.parsed, City)


def test_asynchronous_chat(url):
    async def ask():
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as both:
            return await both.chat.completions.create(model=MODEL, messages=ASK, temperature=0)

    assert "Paris" in asyncio.run(ask()).choices[0].message.content


def test_errors(url):
    code = None
    try:
        client(url).embeddings.create(model=MODEL, input="x")
    except openai.NotFoundError as error:
        code = error.code
    assert code == "not_found"
