"""OpenAI's own SDK against this server, unmodified: every call, both ways, every error's class."""

import asyncio
import signal
from concurrent.futures import ThreadPoolExecutor
from enum import Enum

import openai
import pytest
from pydantic import BaseModel

from tests.end_to_end.running import Server, eventually
from tests.scripted import END, FAIL, SLOW

HELLO = [{"role": "user", "content": "hello"}]
ENDING = [{"role": "user", "content": "hello" + END}]  # the scripted model ends where this does
FAILING = [{"role": "user", "content": FAIL}]


@pytest.fixture
def sdk(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="secret", max_retries=0) as client:
        yield client


def with_async(server, work):
    async def run():
        url = f"{server.url}/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key="secret", max_retries=0) as client:
            return await work(client)

    return asyncio.run(run())


def test_models(server, sdk):
    [model] = sdk.models.list()
    assert model.id == sdk.models.retrieve("echo").id == "echo"

    async def listed(client):
        return [model async for model in client.models.list()]

    assert with_async(server, listed)[0].id == "echo"


def test_completions(server, sdk):
    fields = {"model": "echo", "prompt": ["abc", "xyz"], "temperature": 0, "max_tokens": 4}
    answer = sdk.completions.create(**fields, logprobs=2, echo=True)
    assert [choice.text for choice in answer.choices] == ["abcabc", "xyzxyz"]
    assert answer.choices[0].logprobs.token_logprobs[0] is None
    assert answer.usage.total_tokens == 16
    assert answer._request_id

    async def create(client):
        return await client.completions.create(**fields)

    assert with_async(server, create).choices[1].text == "xyz"


def test_streamed_completions(server, sdk):
    fields = {"model": "echo", "prompt": "abc", "temperature": 0, "max_tokens": 8, "stream": True}
    with sdk.completions.create(**fields) as stream:
        assert "".join(part.choices[0].text for part in stream) == "abcabc"

    async def create(client):
        stream = await client.completions.create(**fields, stream_options={"include_usage": True})
        return [part async for part in stream]

    *_, last = with_async(server, create)
    assert (last.choices, last.usage.completion_tokens) == ([], 8)


def test_chat(server, sdk):
    fields = {"model": "echo", "messages": HELLO, "temperature": 0, "max_completion_tokens": 7}
    answer = sdk.chat.completions.create(**fields, logprobs=True, top_logprobs=3, n=2)
    assert [choice.message.content for choice in answer.choices] == ["uhello"] * 2
    token = answer.choices[1].logprobs.content[2]
    assert (token.token, len(token.top_logprobs)) == ("h", 3)

    async def create(client):
        return await client.chat.completions.create(**fields)

    assert with_async(server, create).choices[0].message.role == "assistant"


def test_streamed_chat(server, sdk):
    fields = {"model": "echo", "messages": ENDING, "temperature": 0}
    with sdk.chat.completions.stream(**fields) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert final.choices[0].message.content == "uhello"
    assert final.choices[0].finish_reason == "stop"

    async def create(client):
        options = {"include_usage": True}
        made = await client.chat.completions.create(**fields, stream=True, stream_options=options)
        return [part async for part in made]

    first, *_, last = with_async(server, create)
    assert first.choices[0].delta.role == "assistant"
    assert last.usage.completion_tokens == 8


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Flag(BaseModel):
    colours: tuple[Colour, Colour]
    is_striped: bool


def test_parsing_into_a_class(server, sdk):
    fields = {"model": "echo", "messages": HELLO, "temperature": 0, "max_tokens": 120}
    flag = sdk.chat.completions.parse(**fields, response_format=Flag).choices[0].message.parsed
    assert isinstance(flag, Flag)

    async def parse(client):
        return await client.chat.completions.parse(**fields, response_format=Flag)

    assert with_async(server, parse).choices[0].message.parsed == flag


@pytest.mark.parametrize(
    ("error", "code", "call"),
    [
        (openai.BadRequestError, "invalid_value", {"temperature": -1}),
        (openai.BadRequestError, "context_length_exceeded", {"max_tokens": 10_000}),
        (openai.BadRequestError, "unsupported_parameter", {"tools": [{"type": "function"}]}),
        (openai.NotFoundError, "model_not_found", {"model": "gpt-4"}),
        (
            openai.InternalServerError,
            "internal_error",
            {"messages": FAILING},
        ),
    ],
)
def test_errors_are_the_sdks_own_classes(server, sdk, error, code, call):
    fields = {"model": "echo", "messages": HELLO} | call
    with pytest.raises(error) as refusal:
        sdk.chat.completions.create(**fields)
    assert refusal.value.code == code
    assert refusal.value.request_id

    async def create(client):
        await client.chat.completions.create(**fields)

    with pytest.raises(error):
        with_async(server, create)


def test_a_wrong_key_and_a_wrong_route(server):
    wrong = openai.OpenAI(base_url=f"{server.url}/v1", api_key="wrong", max_retries=0)
    with wrong, pytest.raises(openai.AuthenticationError):
        wrong.models.list()
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="secret", max_retries=0) as client:
        with pytest.raises(openai.NotFoundError):
            client.embeddings.create(model="echo", input="x")
        with pytest.raises(openai.NotFoundError):
            client.responses.create(model="echo", input="x")


def test_a_full_queue_is_a_rate_limit():
    with Server("--max-batch", "1", "--max-queue", "2") as small:
        small.ready()
        client = openai.OpenAI(base_url=f"{small.url}/v1", api_key="x", max_retries=0)
        slow = {"model": "echo", "prompt": SLOW, "max_tokens": 200}
        with client, client.completions.create(**slow, n=2, stream=True), ThreadPoolExecutor() as x:
            waiting = x.submit(small.http.post, "/v1/completions", json=slow | {"max_tokens": 1})
            eventually(lambda: small.metric("num_requests_waiting") == 2)
            with pytest.raises(openai.RateLimitError):
                client.completions.create(**slow)
            small.signal(signal.SIGKILL)
            assert waiting.exception() is not None


def test_an_error_within_a_stream_is_raised(server, sdk):
    """The prompt's next token tells the scripted model to fail, once a first one is out."""
    body = {"model": "echo", "prompt": [[97, 98]], "stream": True, "max_tokens": 8}
    stream = sdk.completions.create(**body, logit_bias={"1": 100}, temperature=0)
    with stream, pytest.raises(openai.APIError):
        list(stream)
