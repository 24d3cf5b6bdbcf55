"""pydantic-ai: OpenAIChatModel. Classes by NativeOutput; its default output needs tools."""

from typing import Literal

from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

ASK = "What is the capital of France? Answer in one word."


class City(BaseModel):
    name: Literal["Paris", "Lyon"]


def agent(url, **more):
    provider = OpenAIProvider(base_url=f"{url}/v1", api_key="none")
    model = OpenAIChatModel("smollm2-135m-instruct", provider=provider)
    return Agent(model, model_settings={"temperature": 0, "max_tokens": 24}, **more)


def test_chat(url):
    assert "Paris" in agent(url).run_sync(ASK).output


def test_streamed_chat(url):
    with agent(url).run_stream_sync(ASK) as told:
        assert "Paris" in "".join(told.stream_text(delta=True))


def test_native_output(url):
    assert isinstance(agent(url, output_type=NativeOutput(City)).run_sync(ASK).output, City)
