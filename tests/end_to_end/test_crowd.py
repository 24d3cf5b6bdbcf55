"""
Many clients on a real checkpoint: each is answered as if it were alone, whoever comes and
goes.
"""

import asyncio
import json
import random
import re
import signal
import time
from pathlib import Path

import httpx
import pytest

from tests.end_to_end.running import (
    PATIENCE,
    TIEDLM,
    Server,
    events,
    eventually,
    is_idle,
    request_bytes,
)

NUM_CLIENTS = 32
SMOLLM, GEMMA = "smollm2-135m-instruct", "gemma-3-270m"
# Rounds in all precisions: the two that people serve take turns longest.
ROUNDS = {
    (SMOLLM, "auto"): 5,
    (SMOLLM, "float32"): 5,
    (SMOLLM, "bfloat16"): 1,
    (SMOLLM, "int8"): 1,
    (SMOLLM, "int4"): 1,
    (GEMMA, "auto"): 1,
}
STORM = 200
# 2,048 tokens: a full crowd does not fit, so that some wait and some are preempted.
FLAGS = ("--kv-cache-tokens", "2048", "--max-context", "1024", "--max-batch", "16")
WORDS = Path(__file__).read_text().split()


@pytest.fixture(scope="module", params=ROUNDS, ids=" ".join)
def served(request):
    """A server, and how many rounds."""
    name, precision = request.param
    flags = (*FLAGS, "--precision", precision)
    with Server(*flags, command=[*TIEDLM, "serve", name]) as running:
        yield running.ready(patience=600), ROUNDS[request.param]


def mixed_calls():
    """Long and short, greedy and seeded, alone and several, streamed and not."""
    chance = random.Random(0)
    calls = []
    for i in range(NUM_CLIENTS):
        prompt = " ".join(chance.choices(WORDS, k=chance.choice([1, 5, 30, 90])))
        call = {"prompt": prompt, "max_tokens": chance.choice([1, 4, 16]), "seed": i}
        call |= chance.choice([{"temperature": 0}, {"temperature": 0.9, "top_p": 0.9}])
        call |= chance.choice([{}, {"n": 2}, {"logprobs": 3}, {"stop": "e"}])
        calls.append(call | chance.choice([{}, {"prompt_logprobs": 2}]))
    return calls


async def answer(client, call, is_stream):
    if not is_stream:
        response = await client.post("/generate", json=call)
        response.raise_for_status()
        return what_counts(response.json())
    async with client.stream("POST", "/generate", json=call | {"stream": True}) as response:
        lines = [line async for line in response.aiter_lines() if line.startswith("data: {")]
    return joined([json.loads(line.removeprefix("data: ")) for line in lines])


def what_counts(answer):
    """All of an answer but names and times: per choice the text, tokens and ending; prompts."""
    keys = ("text", "token_ids", "finish_reason", "stop_reason")
    choices = [[c[key] for key in keys] + [c.get("tokens", [])] for c in answer["choices"]]
    return choices, answer.get("prompts")


def joined(parts):
    found, prompts = {}, None
    for part in parts:
        assert "error" not in part, part
        prompts = part.get("prompts") or prompts
        for c in part["choices"]:
            text, ids, _, _, tokens = found.get(c["index"], ("", [], None, None, []))
            tokens = tokens + c.get("tokens", [])
            ending = (c["finish_reason"], c["stop_reason"])
            found[c["index"]] = [text + c["text"], ids + c["token_ids"], *ending, tokens]
    return [found[index] for index in sorted(found)], prompts


async def crowd(url, calls, chance):
    order = random.Random(chance).sample(range(len(calls)), len(calls))
    async with httpx.AsyncClient(base_url=url, timeout=600, limits=httpx.Limits()) as client:
        got = await asyncio.gather(*(answer(client, calls[i], (i + chance) % 2) for i in order))
    return dict(zip(order, got, strict=True))


def test_each_of_a_mixed_crowd_gets_what_it_gets_alone(served):
    server, num_rounds = served
    calls = mixed_calls()
    alone = [what_counts(server.post("/generate", call, timeout=600).json()) for call in calls]
    for round_number in range(num_rounds):
        together = asyncio.run(crowd(server.url, calls, round_number))
        for i, expected in enumerate(alone):
            assert together[i] == expected, calls[i]
    eventually(lambda: is_idle(server))


def resident_bytes(server):
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) * 1024


@pytest.mark.parametrize("served", [(SMOLLM, "auto")], indirect=True)
def test_a_storm_that_leaves_is_over_at_once(served):
    server, _ = served
    call = {"prompt": "word " * 200, "max_tokens": 500, "ignore_eos": True}
    server.generate("warm", max_tokens=2)
    before = resident_bytes(server)
    connections = [server.connect() for _ in range(STORM)]
    for i, connection in enumerate(connections):
        body = call | {"prompt": f"{i} {call['prompt']}", "stream": i % 2 == 0}
        connection.sendall(request_bytes(json.dumps(body).encode()))
    eventually(lambda: server.metric("num_requests_waiting") > STORM / 2)
    for connection in connections:
        connection.close()
    began = time.monotonic()
    assert server.generate("The capital of France is", max_tokens=1)["choices"]
    assert time.monotonic() - began < 5
    eventually(lambda: is_idle(server))
    assert resident_bytes(server) < before + (100 << 20)


def test_streams_in_flight_end_whole_when_the_server_is_told_to_stop():
    with Server(*FLAGS, command=[*TIEDLM, "serve"]) as server:
        server.ready(patience=600)
        call = {"prompt": "Once upon a time", "max_tokens": 24, "temperature": 0}
        call |= {"ignore_eos": True, "stream": True}
        clients = [httpx.Client(base_url=server.url, timeout=PATIENCE) for _ in range(4)]
        streams = [client.stream("POST", "/generate", json=call) for client in clients]
        told = [events(stream.__enter__()) for stream in streams]
        first = [next(parts) for parts in told]
        server.signal(signal.SIGTERM)
        for begin, parts in zip(first, told, strict=True):
            *middle, last, done = parts
            assert done == "[DONE]"
            assert last["usage"]["completion_tokens"] == 24
            assert joined([begin, *middle])[0][0][2] == "length"
        for client in clients:
            client.close()
        assert server.wait() == 0
