"""
The default checkpoint through the socket, beside transformers' `generate` in the same run; float32.

Pairs alternate, since a shared machine's speed drifts: read the medians of the ratios. The last
line is one line of JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import httpx
import torch
import transformers

from benchmarks.load import greedy, random_prompts, together
from benchmarks.process import Server, resident_bytes
from benchmarks.spread import spread
from weights.catalog import resolve

MODEL = "smollm2-135m-instruct"
THREADS = os.cpu_count() or 1
PAIRS = 5
IDLE = "import torch, fastapi, uvicorn, sys; print('up', flush=True); sys.stdin.read()"


def idle_bytes() -> int:
    """Resident memory of a process that has only imported torch and fastapi."""
    process = subprocess.Popen(
        [sys.executable, "-c", IDLE], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    occupied = resident_bytes(process.pid)
    process.kill()
    process.wait()
    return occupied


def memory(server: Server) -> dict[str, Any]:
    """After work: every weight has been read."""
    props = httpx.get(f"{server.url}/props").json()
    occupied, idle = server.resident_bytes(), idle_bytes()
    parameters, pool = props["parameter_bytes"], props["limits"]["kv_cache_memory"]
    return {
        "resident_mb": occupied >> 20,
        "idle_process_mb": idle >> 20,
        "parameters_mb": parameters >> 20,
        "kv_pool_mb": pool >> 20,
        "share_of_bound": round(occupied / (1.15 * parameters + pool + idle), 3),
    }


def transformers_generate() -> Callable[[list[list[int]], int], float]:
    """-> tokens a second of generate() on a batch of prompts of one length."""
    path = resolve(MODEL)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    ).eval()

    def run(prompts: list[list[int]], max_tokens: int) -> float:
        started = time.perf_counter()
        model.generate(
            torch.tensor(prompts), max_new_tokens=max_tokens, do_sample=False, eos_token_id=None
        )
        return len(prompts) * max_tokens / (time.perf_counter() - started)

    return run


def one_stream(url: str, seed: int) -> float:
    seconds, _ = together(url, [greedy(random_prompts(1, 128, seed)[0], 64)])
    return 64 / seconds


def sixteen_streams(url: str, seed: int) -> float:
    bodies = [greedy(prompt, 64) for prompt in random_prompts(16, 128, seed)]
    seconds, _ = together(url, bodies)
    return 16 * 64 / seconds


def shared_prefix(url: str, seed: int) -> float:
    """
    Seconds for 16 requests over one new prefix of 512 tokens, each with 16 of its own, one token
    out.
    """
    prefix = random_prompts(1, 512, seed)[0]
    bodies = [greedy(prefix + tail, 1) for tail in random_prompts(16, 16, seed + 1)]
    seconds, _ = together(url, bodies)
    return seconds


def overhead_ms(url: str) -> list[float]:
    """
    From the client's send to its receipt, less the time in the model: socket to first matmul is a
    part of it.
    """
    found = []
    with httpx.Client(base_url=url) as client:
        for seed in range(20):
            body = greedy(random_prompts(1, 1, seed)[0], 1)
            started = time.perf_counter()
            timings = client.post("/generate", json=body).json()["timings"]
            whole = (time.perf_counter() - started) * 1e3
            found.append(whole - timings["prefill_ms"] - timings["decode_ms"])
    return found


def main() -> None:
    flags = (MODEL, "--precision", "float32", "--speculation", "off", "--threads", str(THREADS))
    flags += ("--max-batch", "16", "--kv-cache-tokens", "16384")
    theirs = transformers_generate()
    torch.set_num_threads(THREADS)
    with Server(*flags) as server, Server(*flags, "--prefix-cache", "off") as uncached:
        one_stream(server.url, 1)
        one_stream(uncached.url, 1)
        result: dict[str, Any] = {"ready_s": round(server.ready_seconds, 2)}
        result["decode_over_transformers"] = spread(
            [
                one_stream(server.url, 100 + i) / theirs(random_prompts(1, 128, 200 + i), 64)
                for i in range(PAIRS)
            ]
        )
        result["sixteen_streams_over_transformers"] = spread(
            [
                sixteen_streams(server.url, 700 + i) / theirs(random_prompts(16, 128, 800 + i), 64)
                for i in range(PAIRS)
            ]
        )
        result["sixteen_streams_over_one"] = spread(
            [
                sixteen_streams(server.url, 300 + i) / one_stream(server.url, 400 + i)
                for i in range(PAIRS)
            ]
        )
        result["shared_prefix_speedup"] = spread(
            [
                shared_prefix(uncached.url, 500 + i) / shared_prefix(server.url, 600 + i)
                for i in range(PAIRS)
            ]
        )
        result["overhead_ms"] = spread(overhead_ms(server.url))
        result["memory"] = memory(server)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
