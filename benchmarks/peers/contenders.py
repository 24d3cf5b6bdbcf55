"""
What is measured side by side: each contender answers the same few questions.

`stream` gives tokens a second of decoding and the seconds until the last token; a contender that
has no HTTP server of its own (OpenVINO GenAI) is driven through its pipe, which costs it less.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import httpx

from benchmarks.peers import client
from benchmarks.process import Process, Server, resident_bytes

Prompt = Sequence[int]
VOCAB_SIZE = 49_152  # of SmolLM2
DRIVER = Path(__file__).with_name("openvino_driver.py")


class Contender(Protocol):
    name: str
    ready_seconds: float

    def __enter__(self) -> Self: ...
    def __exit__(self, *error: object) -> None: ...
    def decode(self, prompt: Prompt, max_tokens: int) -> float:
        """Tokens a second of one stream."""
        ...

    def run(self, prompts: Sequence[Prompt], max_tokens: int) -> float:
        """Seconds until the last token of all."""
        ...

    def resident_bytes(self) -> int: ...


class OverHTTP:
    """A server with `/v1/completions`."""

    def __init__(self, name: str, process: Process) -> None:
        self.name, self.process = name, process

    def __enter__(self) -> Self:
        self.process.__enter__()
        self.ready_seconds = self.process.ready_seconds
        self._client = httpx.Client(base_url=self.process.url, timeout=client.PATIENCE)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.close()
        self.process.__exit__(kind, error, trace)

    def decode(self, prompt: Prompt, max_tokens: int) -> float:
        return client.stream(self.process.url, [prompt], max_tokens)[0].tokens_a_second

    def run(self, prompts: Sequence[Prompt], max_tokens: int) -> float:
        return client.seconds(client.stream(self.process.url, prompts, max_tokens))

    def resident_bytes(self) -> int:
        return self.process.resident_bytes()

    def _post(self, path: str, body: dict[str, Any], **headers: str) -> float:
        started = time.perf_counter()
        answer = self._client.post(path, json=body, headers=headers)
        answer.raise_for_status()
        return time.perf_counter() - started


class Ours(OverHTTP):
    def __init__(self, name: str, model: str, precision: str, threads: int, *flags: str) -> None:
        super().__init__(
            name,
            Server(model, "--precision", precision, "--threads", str(threads), *flags),
        )

    def distribution(self, prompt: Prompt) -> float:
        """Seconds for the whole next-token distribution of a prompt, the second time it is seen."""
        body = {"prompt": list(prompt), "top_k": 0}
        return self._post("/next-token-probabilities", body, Accept="application/x-npy")


class LlamaCpp(OverHTTP):
    def __init__(self, name: str, binaries: Path, model: Path, threads: int, slots: int) -> None:
        command = [str(binaries / "llama-server"), "-m", str(model), "--host", "127.0.0.1"]
        command += ["-t", str(threads), "-tb", str(threads), "-np", str(slots), "--no-ui"]
        command += ["-c", str(slots * 1024 if slots > 1 else 4096)]
        super().__init__(
            f"llama.cpp {name}",
            Process(lambda port: [*command, "--port", str(port)], "/health"),
        )

    def distribution(self, prompt: Prompt) -> float:
        body = {
            "prompt": list(prompt),
            "n_predict": 1,
            "temperature": 0,
            "n_probs": VOCAB_SIZE,
            "cache_prompt": True,
        }
        return self._post("/completion", body)


class OpenVINO:
    """OpenVINO GenAI in a process of its own, which need not have this project's dependencies."""

    def __init__(self, name: str, python: Path, model: Path, threads: int) -> None:
        self.name = f"OpenVINO {name}"
        self._command = [str(python), str(DRIVER), str(model), str(threads), name]

    def __enter__(self) -> Self:
        started = time.perf_counter()
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._ask([[1000, 1001]], 1)
        self.ready_seconds = time.perf_counter() - started
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.terminate()
        self._process.wait(timeout=60)

    def _ask(self, prompts: Sequence[Prompt], max_tokens: int) -> dict[str, float]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        question = {"prompts": [list(prompt) for prompt in prompts], "max_tokens": max_tokens}
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the driver ended: {' '.join(self._command)}")
        return json.loads(line)

    def decode(self, prompt: Prompt, max_tokens: int) -> float:
        return self._ask([prompt], max_tokens)["tokens_a_second"]

    def run(self, prompts: Sequence[Prompt], max_tokens: int) -> float:
        return self._ask(prompts, max_tokens)["seconds"]

    def resident_bytes(self) -> int:
        return resident_bytes(self._process.pid)
