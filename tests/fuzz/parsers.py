"""
All that reads bytes from outside, as functions of any bytes.

Each may refuse them, in its own documented way only; what it takes is compared with a slow twin
where there is one. True says that the bytes were taken. hypothesis runs them in the suite
(test_parsers.py), atheris for as long as one likes (coverage.py).
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import h11
from pydantic import ValidationError

from server.api.body import parse_json
from server.api.schemas.native import GenerateBody
from server.api.schemas.openai import ChatBody
from server.errors import ServeError
from server.framing import StrictConnection
from server.text.detokenize import Detokenizer
from server.text.stop import StopFinder
from weights.checkpoint import CheckpointError
from weights.config import read_config
from weights.families import llama
from weights.fields import Fields
from weights.gguf_header import read_header
from weights.hf_tensors import SafetensorsSource, weight_files
from weights.json_file import parse_object, read_object

MAX_VALUES = 10_000
HEAD = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def json_body(data: bytes) -> bool:
    try:
        value = parse_json(data, MAX_VALUES)
    except ServeError as error:
        assert error.status == 400
        return False
    assert value == json.loads(data, parse_constant=str)
    json.dumps(value, allow_nan=False).encode()
    return True


def request_fields(data: bytes) -> bool:
    """A body's fields, in either dialect: taken, or refused by name."""
    try:
        value = parse_json(data, MAX_VALUES)
    except ServeError:
        return False
    return any([is_taken(GenerateBody, value), is_taken(ChatBody, value)])


def is_taken(body: type[GenerateBody] | type[ChatBody], value: object) -> bool:
    try:
        body.model_validate(value)
    except (ValidationError, ServeError):
        return False
    return True


def request_head(data: bytes) -> bool:
    return cut_anywhere(data)


def chunks(data: bytes) -> bool:
    return cut_anywhere(HEAD + data)


def cut_anywhere(wire: bytes) -> bool:
    """However a request is cut, the same of it is read, and refused at the same place or not."""
    whole = read([wire])
    for size in (1, 7):
        assert read([wire[at : at + size] for at in range(0, len(wire), size)]) == whole
    return whole[0][-1:] == ["end"]


def read(parts: Sequence[bytes]) -> tuple[list[Any], bytes, int | None]:
    """Heads and ends of requests, the bodies' bytes, and the status of a refusal."""
    made, seen, body = StrictConnection(4096, 65536), [], b""
    try:
        for part in filter(None, parts):
            made.receive_data(part)
            while (event := made.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
                if isinstance(event, h11.Request):
                    seen.append((event.method, event.target, list(event.headers)))
                elif isinstance(event, h11.Data):
                    body += event.data
                else:
                    return [*seen, "end"], body, None
    except h11.RemoteProtocolError:
        assert made.refusal is not None
        return seen, b"", made.refusal.status  # how much came before it depends on the cuts
    return seen, body, None


def text_in_parts(data: bytes) -> bool:
    """The first byte says where to cut the others; their last two characters are a stop string."""
    step, data = 1 + (data[0] if data else 0) % 5, data[1:]
    text = data.decode("utf-8", "replace")
    detokenizer, finder = Detokenizer(), StopFinder([text[-2:]] if text else [], False)
    places = [*range(0, len(data), step), len(data)]
    decoded, released, stop = "", "", None
    for part in [*(detokenizer.push(data[a:b]) for a, b in pairwise(places)), detokenizer.finish()]:
        decoded += part
        if stop is None:
            more, stop = finder.push(part, is_armed=True)
            released += more
    assert decoded == text
    assert released == (text[: text.index(text[-2:])] if text else "")
    return True


def in_a_folder(name: str, read_it: Callable[[Path], object]) -> Callable[[bytes], bool]:
    def target(data: bytes) -> bool:
        with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
            path = Path(folder) / name
            path.write_bytes(data)
            try:
                read_it(path)
            except CheckpointError as error:
                assert 0 < len(str(error)) < 1000
                assert "\n" not in str(error)
                return False
            return True

    return target


def safetensors_names(path: Path) -> None:
    source = SafetensorsSource((path,), llama.FAMILY)
    assert all(source.num_bytes(name) >= 0 for name in source.shapes if source.types[name] == "F32")


def model_config(data: bytes) -> bool:
    try:
        read_config(Fields(parse_object(data, "config.json"), "config.json"))
    except CheckpointError as error:
        assert "\n" not in str(error)
        return False
    return True


TARGETS: Mapping[str, Callable[[bytes], bool]] = {
    "json_body": json_body,
    "request_fields": request_fields,
    "request_head": request_head,
    "chunks": chunks,
    "text_in_parts": text_in_parts,
    "gguf_header": in_a_folder("a.gguf", read_header),
    "safetensors_header": in_a_folder("model.safetensors", safetensors_names),
    "shard_index": in_a_folder(
        "model.safetensors.index.json", lambda path: weight_files(path.parent)
    ),
    "json_file": in_a_folder("config.json", read_object),
    "model_config": model_config,
}
