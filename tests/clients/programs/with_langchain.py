"""langchain-openai: ChatOpenAI and OpenAI with a base_url."""

from typing import Literal

from langchain_openai import ChatOpenAI, OpenAI
from pydantic import BaseModel

ASK = "What is the capital of France? Answer in one word."


class City(BaseModel):
    name: Literal["Paris", "Lyon"]


def model(url, kind=ChatOpenAI, **more):
    own = {"base_url": f"{url}/v1", "api_key": "none", "temperature": 0, "max_tokens": 24}
    return kind(model="smollm2-135m-instruct", **own, **more)


def test_chat(url):
    assert "Paris" in model(url).invoke(ASK).content


def test_streamed_chat(url):
    assert "Paris" in "".join(part.content for part in model(url).stream(ASK))


def test_structured_output(url):
    for method in ("json_schema", "json_mode"):
        told = model(url).with_structured_output(City, method=method, include_raw=True)
        answer = told.invoke(f"{ASK} Answer in JSON with the key name.")
        if method == "json_schema":
            assert isinstance(answer["parsed"], City)
        assert answer["raw"].content.startswith("{")


def test_log_probabilities(url):
    answer = model(url, logprobs=True, top_logprobs=2).invoke(ASK)
    first = answer.response_metadata["logprobs"]["content"][0]
    assert len(first["top_logprobs"]) == 2


def test_completions(url):
    told = model(url, OpenAI).generate(["The capital of France is", "2 + 2 ="])
    assert told.generations[0][0].text.startswith(" Paris")
    assert len(told.generations) == 2
