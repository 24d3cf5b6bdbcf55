"""instructor in its JSON modes; the tool modes need tools, which this server refuses by name."""

from typing import Literal

import instructor
import openai
from pydantic import BaseModel


class City(BaseModel):
    name: Literal["Paris", "Lyon"]
    is_capital: bool


def ask(url, mode):
    plain = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    return instructor.from_openai(plain, mode=mode).chat.completions.create(
        model="smollm2-135m-instruct",
        messages=[{"role": "user", "content": 'Answer with {"name": "Paris", "is_capital": true}'}],
        response_model=City,
        temperature=0,
        max_retries=2,
    )


def test_mode_JSON_SCHEMA(url):
    assert isinstance(ask(url, instructor.Mode.JSON_SCHEMA), City)


def test_mode_JSON(url):
    """It asks for any JSON object: that one fits the class is the prompt's affair."""
    assert isinstance(ask(url, instructor.Mode.JSON), City)
