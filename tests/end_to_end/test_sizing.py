"""docs/operations.md's arithmetic, against what running servers say and take."""

import re
from pathlib import Path

import pytest

from server.kv_budget import RESERVE
from weights.catalog import resolve
from weights.load import load

PROGRAM = 300_000_000  # bytes, as the page has it
WIDTHS = {"float32": 4, "bfloat16": 2}


def resident(pid):
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) * 1024


@pytest.fixture
def props(exact):
    return exact.http.get("/props").json()


def test_weights_and_cache_are_what_the_formulas_say(props):
    config = load(resolve(props["model"])).config
    per_token = 2 * config.num_layers * config.num_kv_heads * config.head_dim * 4
    limits = props["limits"]
    assert limits["kv_cache_memory"] == limits["kv_cache_tokens"] * per_token
    weights = props["parameters"] * WIDTHS[props["precision"]]
    assert weights <= props["parameter_bytes"] <= weights + 4096  # with the rotary frequencies


def test_a_server_at_work_is_no_larger_than_the_page_says(exact, props):
    prompts = [[i, *range(100, 700)] for i in range(200, 208)]
    exact.generate(prompts, max_tokens=2, add_special_tokens=False, prompt_logprobs=1)
    bound = PROGRAM + props["parameter_bytes"] + props["limits"]["kv_cache_memory"] + RESERVE
    assert resident(exact.process.pid) < bound
