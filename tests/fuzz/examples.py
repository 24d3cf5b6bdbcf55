"""What each parser takes, for a fuzzer to begin from."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path

from tests.weights.tiny import tiny_gguf, tiny_hf

GENERATE = {
    "prompt": ["a", "\u00e9\U0001f600"],
    "temperature": 0.5,
    "stop": ["x"],
    "logit_bias": {"5": -1.5},
    "seed": 1,
    "logprobs": 2,
    "stream": False,
    "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {}}},
}
CHAT = {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}], "n": 2}
REQUEST = (
    b"POST /generate?a=%20b HTTP/1.1\r\nHost: localhost:80\r\nContent-Length: 2\r\n"
    b'X-Request-Id: "a"\r\nConnection: keep-alive\r\n\r\n{}'
)


def safetensors_of(shapes: dict[str, list[int]]) -> bytes:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    told = json.dumps(header).encode()
    return struct.pack("<Q", len(told)) + told + bytes(end)


def examples(folder: Path) -> dict[str, list[bytes]]:
    """By the names of parsers.TARGETS; `folder` is empty, and written to."""
    tiny = tiny_hf(folder / "tiny")
    gguf = tiny_gguf(folder / "tiny.gguf").read_bytes()
    bodies = [json.dumps(body).encode() for body in (GENERATE, CHAT)]
    config = (tiny / "config.json").read_bytes()
    return {
        "json_body": [*bodies, b'[1e5, -0.0, null, true, "\\ud83d\\ude00", {}]'],
        "request_fields": bodies,
        "request_head": [REQUEST, REQUEST.replace(b"Content-Length: 2", b"Accept: */*")],
        "chunks": [
            b"5\r\nabcde\r\n1;a=b\r\n{\r\n0\r\n\r\n",
            b"A\r\n0123456789\r\n0\r\nX: y\r\n\r\n",
        ],
        "text_in_parts": [b"\1" + "aé世😀 END, no END".encode(), b"\3\xf0\x9f\x92\xc3\xa9\xe4\xb8"],
        "gguf_header": [gguf],
        "safetensors_header": [safetensors_of({"model.norm.weight": [16], "b": [2, 3]})],
        "shard_index": [json.dumps({"weight_map": {}}).encode()],
        "json_file": [config],
        "model_config": [config],
    }
