"""
Each class of attack that docs/security.md lists, through the socket, on a real checkpoint: refused
in the documented shape, in bounded time and memory, and the next request is answered as before.
"""

import json
import re
import time
from pathlib import Path

import pytest

from tests.end_to_end.running import ROOT, TIEDLM, Server, is_idle, request_bytes

MAX_SECONDS = 2.0  # from the request's first byte to the answer's last
MAX_GROWTH = 50 * 2**20
SIZE = 1_000_000
REGEX_BOMB = {"type": "regex", "pattern": "((a{1000}){1000}){1000}"}
CANARY = {"prompt": "The capital of France is", "max_tokens": 4, "temperature": 0, "logprobs": 3}


def nested(depth):
    schema = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}}
    return {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}


def prompt(text):
    return {"prompt": text, "max_tokens": 1}


BODIES = {
    "n": {"prompt": "a", "n": 2**31},
    "prompts x n": {"prompt": ["a"] * 100, "n": 60},
    "prompts": {"prompt": ["a"] * 100_000},
    "stops": {"prompt": "a", "stop": ["x" * 1024] * 3000},
    "biases": {"prompt": "a", "logit_bias": {str(i): 1 for i in range(40_000)}},
    "alternatives x tokens": {"prompt": ["a"] * 128, "logprobs": 20, "max_tokens": 1000},
    "a negative id": {"prompt": [-1]},
    "an id beyond 64 bits": {"prompt": [2**64]},
    "an id beyond 32 bits in a mask": {"prompt": "a", "allowed_token_ids": [2**32]},
    "one letter": prompt("a" * SIZE),
    "white space": prompt(" " * SIZE),
    "digits": prompt("7" * SIZE),
    "marks on one letter": prompt("a" + "\u0301" * (SIZE // 2)),
    "emoji": prompt("\U0001f600" * (SIZE // 4)),
    "special tokens": prompt("<|im_end|>" * (SIZE // 10)),
    "a key of a megabyte": {"prompt": "a", "x" * SIZE: 1},
    "a regex bomb": {"prompt": "a", "response_format": REGEX_BOMB},
    "a schema too deep": {"prompt": "a", "response_format": nested(60)},
}
RAW = {
    "depth": b"[" * SIZE,
    "depth of objects": b'{"a":' * 100_000,
    "values": b'{"prompt": [' + b"1," * (SIZE // 2) + b"1]}",
    "digits": b'{"prompt": "a", "seed": ' + b"9" * SIZE + b"}",
    "surrogates": b'{"prompt": "' + b"\\ud800" * 100_000 + b'"}',
    "escapes without an end": b'{"prompt": "' + b"\\" * SIZE,
    "not a number": b'{"prompt": "a", "temperature": NaN}',
    "one key many times": b"{" + b'"a":1,' * 100_000 + b'"a":1}',
}


@pytest.fixture(scope="module")
def smollm():
    flags = ("--kv-cache-tokens", "4096", "--max-context", "1024", "--max-reports", "5000")
    with Server(*flags, command=[*TIEDLM, "serve"]) as server:
        yield server.ready(patience=600)


def peak_bytes(pid):
    return 1024 * int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1])


@pytest.mark.parametrize(
    "body",
    [*(json.dumps(body).encode() for body in BODIES.values()), *RAW.values()],
    ids=[*BODIES, *(f"raw {name}" for name in RAW)],
)
def test_what_is_hostile_is_refused_cheaply_and_the_next_is_answered(smollm, body):
    before = smollm.generate(**CANARY)["choices"]
    pid = smollm.process.pid
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak is counted from here
    held, asked = peak_bytes(pid), time.monotonic()
    answer = smollm.raw(request_bytes(body))
    assert time.monotonic() - asked < MAX_SECONDS
    assert answer.status == 400
    assert set(answer.error) == {"message", "type", "param", "code"}
    assert len(answer.body) <= 8192
    assert peak_bytes(pid) - held < MAX_GROWTH
    assert smollm.generate(**CANARY)["choices"] == before
    assert is_idle(smollm)


def test_what_cannot_fit_is_refused_by_its_beginning(smollm):
    """It used to be tokenised whole, a second for each megabyte, while others' prompts waited."""
    answer = smollm.post("/generate", {"prompt": "7" * 20_000})
    assert answer.json()["error"]["code"] == "context_length_exceeded"
    for number in ("20000", "first 8192", "8192 tokens", "1024"):
        assert number in answer.json()["error"]["message"]
    fitting = smollm.generate(" " * 20_000, max_tokens=1)
    assert fitting["usage"]["prompt_tokens"] < 1024


def test_the_tokens_that_are_told_at_once_are_bounded(smollm):
    answer = smollm.post("/tokenize", {"prompt": "7" * 5001})
    assert answer.json()["error"]["message"] == (
        "prompt is 5001 tokens; at most 5000 are told at once"
    )
    told = smollm.post("/tokenize", {"prompt": "7" * 5000}).json()
    assert told["count"] == len(told["tokens"]) == len(told["pieces"]) == 5000


def test_a_client_cannot_bring_its_own_template(smollm):
    """Fields that are not OpenAI's are not used, and named."""
    messages = [{"role": "user", "content": "Say hi."}]
    body = {"messages": messages, "temperature": 0, "max_tokens": 4}
    hostile = body | {"chat_template": "{{ cycler.__init__.__globals__ }}"}
    answer = smollm.post("/v1/chat/completions", hostile)
    assert answer.headers["x-ignored-fields"] == "chat_template"
    plain = smollm.post("/v1/chat/completions", body)
    assert answer.json()["choices"] == plain.json()["choices"]


def test_line_ends_in_what_is_said_make_no_event(smollm):
    """Drawn from line ends alone, a stream is still one line of JSON an event."""
    tokens = smollm.post("/tokenize", {"prompt": "\n\r\n\u2028\x85", "add_special_tokens": False})
    body = {"prompt": "a", "max_tokens": 20, "allowed_token_ids": tokens.json()["tokens"]}
    with smollm.http.stream("POST", "/generate", json=body | {"stream": True, "seed": 1}) as answer:
        raw = b"".join(answer.iter_bytes())
    *told, end = raw.split(b"\n\n")
    assert end == b""
    assert all(event.startswith(b"data: ") and event.count(b"\n") == 0 for event in told)
    assert not {b"\r", b"\x85", "\u2028".encode()} & {raw[i : i + 1] for i in range(len(raw))}
    said = "".join(c["text"] for e in told[:-1] for c in json.loads(e[6:])["choices"])
    assert "\n" in said


@pytest.mark.parametrize("value", [b"a\x0bb", b"a\x1b[2Jb", b"a\xffb", b"a" * 129])
def test_an_id_that_is_no_id_is_neither_echoed_nor_logged(smollm, value):
    request = b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: " + value + b"\r\n\r\n"
    answer = smollm.raw(request)
    assert answer.headers["x-request-id"] != value.decode("latin-1")
    smollm.wait_for(answer.headers["x-request-id"])
    assert value.decode("latin-1") not in "".join(smollm.log)
    assert "\x1b" not in "".join(smollm.log)


def test_a_path_is_not_logged_nor_a_label(smollm):
    smollm.http.get("/evil%0a%1b[31mforged 200")
    smollm.wait_for("unmatched 404")
    assert "forged" not in "".join(smollm.log)
    assert "forged" not in smollm.http.get("/metrics").text


def test_the_server_opens_no_connection_to_what_a_request_names(smollm):
    """Its connections are those that clients have made to it."""
    url = "http://192.0.2.1/secret"
    image = [{"type": "image_url", "image_url": {"url": url}}]
    messages = [{"role": "user", "content": image}]
    answer = smollm.post("/v1/chat/completions", {"messages": messages})
    assert answer.json()["error"]["code"] == "unsupported_parameter"
    smollm.generate(url, max_tokens=1)
    schema = {"$ref": url}
    format_ = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    answer = smollm.post("/generate", {"prompt": "a", "response_format": format_})
    assert answer.json()["error"]["code"] == "invalid_grammar"
    lines = Path(f"/proc/{smollm.process.pid}/net/tcp").read_text().splitlines()[1:]
    remote = [line.split()[2] for line in lines]
    assert any(address.startswith("0100007F") for address in remote), "the tests' own are there"
    assert not any(address.startswith("010200C0") for address in remote)


def test_other_keys_cannot_tell_what_was_asked_by_how_long_it_takes():
    """What one key's prompt left in the cache is not found by another: no tokens, so no time."""
    with Server("--api-key", "one", "--api-key", "two") as server:
        server.ready()
        body = {"prompt": [9] * 100, "max_tokens": 1, "temperature": 0}

        def hits(key):
            server.post("/generate", body, headers={"x-api-key": key}).raise_for_status()
            text = server.http.get("/metrics", headers={"x-api-key": key}).text
            return float(re.search(r"^tiedlm_prefix_cache_hits_total (\S+)", text, re.M)[1])

        assert hits("one") == hits("two")
        assert hits("one") > 0


@pytest.mark.parametrize("damage", ["a cut", "a lying length", "2^63 tensors", "a pickle"])
def test_a_checkpoint_that_lies_is_one_line_and_no_server(tmp_path, damage):
    path = tmp_path / "lies.gguf"
    made = {
        "a cut": b"GGUF\3\0\0\0" + b"\1" + b"\0" * 7 + b"\1" + b"\0" * 7,
        "a lying length": b"GGUF\3\0\0\0" + b"\0" * 8 + b"\1" + b"\0" * 7 + b"\xff" * 40,
        "2^63 tensors": b"GGUF\3\0\0\0" + b"\0" * 7 + b"\x80" + b"\0" * 40,
        "a pickle": b"\x80\x04cos\nsystem\n(S'touch pwned'\ntR." + b"\0" * 40,
    }
    path.write_bytes(made[damage])
    with Server(command=[*TIEDLM, "serve", str(path)]) as server:
        assert server.wait(120) == 1
        server.wait_for("end of the log")
        told = [line for line in server.log if line.startswith("tiedlm: ")]
        assert len(told) == 1
        assert not any("Traceback" in line for line in server.log)
        assert not (ROOT / "pwned").exists()
