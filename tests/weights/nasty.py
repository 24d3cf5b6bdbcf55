"""Texts that tokenizers get wrong, and what llama.cpp recorded for them."""

import json
from pathlib import Path

DATA = Path(__file__).parent / "data"


def recording(name):
    return json.loads((DATA / f"llama_cpp_{name}.json").read_text())


def nasty_texts():
    return [case["text"] for case in recording("gemma-3-270m")["cases"]]
