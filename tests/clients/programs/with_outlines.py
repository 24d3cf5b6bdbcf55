"""outlines: from_openai for JSON, from_vllm for regular expressions and choices."""

import json
import re
from typing import Literal

import openai
import outlines
from outlines.types import Regex
from pydantic import BaseModel


class City(BaseModel):
    name: Literal["Paris", "Lyon"]


def model(url, make):
    return make(openai.OpenAI(base_url=f"{url}/v1", api_key="none"), "smollm2-135m-instruct")


def test_chat(url):
    told = model(url, outlines.from_openai)("What is the capital of France?", temperature=0)
    assert "Paris" in told


def test_JSON_schema(url):
    told = model(url, outlines.from_openai)("A city?", City, temperature=0)
    assert json.loads(told)["name"] in ("Paris", "Lyon")


def test_JSON_schema_as_for_vLLM(url):
    told = model(url, outlines.from_vllm)("A city?", City, temperature=0)
    assert json.loads(told)["name"] in ("Paris", "Lyon")


def test_regular_expression(url):
    told = model(url, outlines.from_vllm)("A number?", Regex("[0-9]{3}"), temperature=0)
    assert re.fullmatch("[0-9]{3}", told)


def test_choice(url):
    assert model(url, outlines.from_vllm)("Sky?", Literal["blue", "red"]) in ("blue", "red")
