"""
What HTTP, JSON and SSE add to the engine called in process: milliseconds to an answer of 16 tokens,
and microseconds of processor time to a streamed token at 16 streams. The model is one that sleeps
a millisecond a step. Of what the chat route adds, the template's part is told by itself.

Pairs alternate. The last line is one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.instant_server import STEP_SECONDS, timed_engine
from benchmarks.process import Process
from model.step import Sampling
from server.engine.engine import Engine
from server.engine.request import Request
from server.text.chat import ChatTemplate
from server.text.tokenizer import TextTokenizer
from tests.scripted import TEMPLATE, VOCAB_SIZE, byte_tokenizer

ANSWER_TOKENS = 16
PAIRS = 150
STREAMS, STREAM_TOKENS, ROUNDS = 16, 500, 3
PROMPT = "Once upon a time"
ROUTES: dict[str, dict[str, Any]] = {
    "/generate": {"prompt": PROMPT},
    "/v1/completions": {"prompt": PROMPT},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": PROMPT}]},
}


class Connection:
    """Kept alive, and as little of a client as can be: its own time is in what is measured."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, request: bytes, is_stream: bool) -> bytes:
        self.socket.sendall(request)
        answer = b""
        while not self.is_whole(answer, is_stream):
            part = self.socket.recv(65536)
            assert part, "the server has closed"
            answer += part
        assert answer.startswith(b"HTTP/1.1 200"), answer
        return answer

    @staticmethod
    def is_whole(answer: bytes, is_stream: bool) -> bool:
        if is_stream:
            return answer.endswith(b"0\r\n\r\n")
        head, _, body = answer.partition(b"\r\n\r\n")
        return b"content-length: %d\r" % len(body) in head.lower() + b"\r" and bool(body)


def request(path: str, max_tokens: int, *, is_stream: bool) -> bytes:
    body = {**ROUTES[path], "max_tokens": max_tokens, "temperature": 0, "stream": is_stream}
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data


async def in_process(engine: Engine, num_streams: int, max_tokens: int, call: int) -> None:
    async def one(i: int) -> None:
        prompt = tuple(PROMPT.encode())
        sampling = Sampling(temperature=0.0)
        made = Request(f"{call}-{i}", prompt, max_tokens, sampling, cache_salt=f"{call}")
        async with engine.submit([made]) as updates:
            async for _, update in updates:
                assert update.ending is None or update.ending.error is None

    await asyncio.gather(*map(one, range(num_streams)))


def milliseconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - began)


def template_ms() -> dict[str, float]:
    """The chat template to token ids, from an event loop, between pauses as those of added_ms."""
    chat = ChatTemplate(TEMPLATE, {}, TextTokenizer(byte_tokenizer(), VOCAB_SIZE))
    messages = ROUTES["/v1/chat/completions"]["messages"]
    loop = asyncio.new_event_loop()
    expected = chat.encode(messages, 1000)

    def encode() -> None:
        assert loop.run_until_complete(chat.encode_at_once(messages, 1000)) == expected

    found = []
    for _ in range(PAIRS):
        time.sleep(ANSWER_TOKENS * STEP_SECONDS)
        found.append(milliseconds(encode))
    loop.close()
    chat.close()
    return {
        "median": round(statistics.median(found), 3),
        "lowest_tenth": round(lowest_tenth(found), 3),
    }


def added_ms(port: int, path: str, *, is_stream: bool) -> dict[str, float]:
    connection, engine = Connection(port), timed_engine()
    engine.start()
    wanted = request(path, ANSWER_TOKENS, is_stream=is_stream)
    loop = asyncio.new_event_loop()
    ours: list[float] = []
    theirs: list[float] = []
    for call in range(PAIRS):
        theirs.append(milliseconds(lambda: connection.ask(wanted, is_stream)))
        alone = in_process(engine, 1, ANSWER_TOKENS, call)
        ours.append(milliseconds(lambda alone=alone: loop.run_until_complete(alone)))  # type: ignore[misc]
    engine.stop()
    loop.close()
    added = [a - b for a, b in zip(theirs, ours, strict=True)]
    return {
        "median_of_pairs": round(statistics.median(added), 3),
        "between_lowest_tenths": round(lowest_tenth(theirs) - lowest_tenth(ours), 3),
    }


def lowest_tenth(values: list[float]) -> float:
    """A busy neighbour only ever adds: this is what is left of it on a shared machine."""
    return statistics.quantiles(values, n=10)[0]


def processor_seconds(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def stream_all(port: int, path: str) -> None:
    """The clients are one process of their own, whose time is not the server's."""
    command = [sys.executable, "-m", "benchmarks.http", "--clients", str(port), path]
    subprocess.run(command, check=True)


def clients(port: int, path: str) -> None:
    connections = [Connection(port) for _ in range(STREAMS)]
    wanted = request(path, STREAM_TOKENS, is_stream=True)
    for connection in connections:
        connection.socket.sendall(wanted)
    for connection in connections:
        tail = b""
        while not tail.endswith(b"0\r\n\r\n"):
            part = connection.socket.recv(65536)
            assert part
            tail = (tail + part)[-16:]


def us_a_token(server: Process, path: str) -> dict[str, float]:
    engine, num_tokens = timed_engine(), STREAMS * STREAM_TOKENS
    engine.start()
    found = []
    for call in range(ROUNDS):
        began = processor_seconds(server.process.pid)
        stream_all(server.port, path)
        ours = processor_seconds(server.process.pid) - began
        alone = time.process_time()
        asyncio.run(in_process(engine, STREAMS, STREAM_TOKENS, call))
        found.append(1e6 * (ours - (time.process_time() - alone)) / num_tokens)
    engine.stop()
    return {"median": round(statistics.median(found), 1), "max": round(max(found), 1)}


def _instant_server(port: int) -> list[str]:
    return [sys.executable, "-m", "benchmarks.instant_server", "--port", str(port)]


def main() -> None:
    result: dict[str, Any] = {}
    with Process(_instant_server, "/ready") as server:
        for path in ROUTES:
            result[path] = {
                "whole_added_ms": added_ms(server.port, path, is_stream=False),
                "stream_added_ms": added_ms(server.port, path, is_stream=True),
                "us_a_streamed_token": us_a_token(server, path),
            }
    result["template_ms"] = template_ms()
    print(json.dumps(result))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--clients"]:
        clients(int(sys.argv[2]), sys.argv[3])
    else:
        main()
