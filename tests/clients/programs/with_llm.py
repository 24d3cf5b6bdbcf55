"""The `llm` command: models by extra-openai-models.yaml in its folder."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

MODELS = """
- model_id: chat
  model_name: smollm2-135m-instruct
  api_base: {url}/v1
  supports_schema: true
- model_id: plain
  model_name: smollm2-135m-instruct
  api_base: {url}/v1
  completion: true
"""
ASK = "What is the capital of France? Answer in one word."


def llm(url, *arguments):
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "extra-openai-models.yaml").write_text(MODELS.format(url=url))
        command = Path(sys.executable).with_name("llm")
        own = os.environ | {"LLM_USER_PATH": folder}
        return subprocess.run(
            [command, *arguments], env=own, check=True, stdout=subprocess.PIPE, text=True
        ).stdout


def test_streamed_chat(url):
    assert "Paris" in llm(url, "-m", "chat", ASK, "-o", "temperature", "0")


def test_chat(url):
    assert "Paris" in llm(url, "-m", "chat", ASK, "-o", "temperature", "0", "--no-stream")


def test_JSON_schema(url):
    schema = json.dumps(
        {
            "type": "object",
            "properties": {"city": {"enum": ["Paris", "Lyon"]}},
            "required": ["city"],
            "additionalProperties": False,
        }
    )
    told = llm(url, "-m", "chat", ASK, "--schema", schema, "-o", "temperature", "0")
    assert json.loads(told)["city"] in ("Paris", "Lyon")


def test_completions(url):
    told = llm(
        url,
        "-m",
        "plain",
        "The capital of France is",
        "-o",
        "temperature",
        "0",
        "-o",
        "max_tokens",
        "8",
    )
    assert "Paris" in told
