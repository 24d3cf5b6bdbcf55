import json
import signal
import socket
import subprocess
from contextlib import contextmanager

import httpx
import pytest

from tests.end_to_end.running import (
    PATIENCE,
    SCRIPTED,
    TIEDLM,
    Server,
    events,
    read_answer,
    request_bytes,
)
from tests.scripted import SLOW, VOCAB_SIZE

# 60 steps of 50 ms: long enough to look at the server meanwhile.
LONG = {"prompt": "ab" + SLOW, "max_tokens": 60, "ignore_eos": True, "stream": True}


@contextmanager
def begun(server, body=LONG):
    """A stream that has begun, and the rest of its events."""
    with (
        httpx.Client(base_url=server.url, timeout=PATIENCE) as client,
        client.stream("POST", "/generate", json=body) as response,
    ):
        told = events(response)
        next(told)
        yield told


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_work_in_flight_ends_normally_and_new_work_is_refused(number):
    with Server() as server, begun(server.ready()) as told:
        server.signal(number)
        server.wait_for("draining")
        assert server.http.get("/health").status_code == 200
        for answer in (server.http.get("/ready"), server.post("/generate", {"prompt": "a"})):
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] == "shutting_down"
            assert int(answer.headers["retry-after"]) >= 1
        *parts, last, done = told
        assert done == "[DONE]"
        assert last["usage"]["completion_tokens"] == 60
        assert parts[-1]["choices"][0]["finish_reason"] == "length"
        assert server.wait() == 0


def test_what_is_left_after_the_drain_timeout_is_cut_with_an_error_event():
    with Server("--drain-timeout", "0.2") as server, begun(server.ready()) as told:
        server.signal()
        *_, last = told
        assert last["error"]["code"] == "shutting_down"
        assert server.wait() == 0


def test_a_whole_answer_is_cut_with_an_error_too():
    with Server("--drain-timeout", "0") as server, server.ready().connect() as connection:
        connection.sendall(request_bytes(json.dumps(LONG | {"stream": False}).encode()))
        while server.metric("num_requests_running") != 1:
            pass
        server.signal()
        answer = read_answer(connection)
        assert (answer.status, answer.error["code"]) == (503, "shutting_down")
        assert server.wait() == 0


def test_a_second_signal_ends_it_at_once():
    with Server() as server, begun(server.ready(), LONG | {"max_tokens": 200}):
        server.signal()
        server.wait_for("draining")
        server.signal()
        assert server.wait(2) == 0


def test_an_idle_server_ends_at_once():
    with Server() as server, server.ready().connect():
        server.signal()
        assert server.wait(3) == 0


def run(*command, **env):
    return subprocess.run(
        command, env={"PATH": "/usr/bin", **env}, capture_output=True, text=True, timeout=PATIENCE
    )


def test_a_port_in_use_is_one_line_and_a_failure():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = run(*TIEDLM, "serve", "--port", str(port))
    assert ended.returncode == 1
    [line] = ended.stderr.splitlines()
    assert line == f"tiedlm: cannot listen on 127.0.0.1:{port}: address already in use"


def test_an_address_that_is_not_ours_is_one_line_and_a_failure():
    for host in ("192.0.2.1", "no.such.host.invalid", "a b"):
        ended = run(*TIEDLM, "serve", "--host", host)
        assert ended.returncode == 1
        assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("flags", "env", "told"),
    [
        (["--bogus"], {}, "--bogus"),
        (["--port", "zero"], {}, "--port"),
        ([], {"TIEDLM_MAX_BATCH": "many"}, "TIEDLM_MAX_BATCH"),
        (["--prefix-cache", "maybe"], {}, "'maybe'"),
    ],
)
def test_a_flag_or_value_that_is_not_known_is_one_line_and_two(flags, env, told):
    ended = run(*TIEDLM, "serve", *flags, **env)
    assert ended.returncode == 2
    [line] = ended.stderr.splitlines()
    assert told in line
    assert ended.stdout == ""


def test_a_variable_that_is_no_setting_is_told(monkeypatch):
    ended = run(*TIEDLM, "serve", "--host", "192.0.2.1", TIEDLM_PROT="1")
    assert "TIEDLM_PROT" in ended.stderr


@pytest.mark.parametrize("command", ["serve", "inspect"])
def test_a_model_that_is_not_there_is_one_line_and_a_failure(command):
    flags = ["--port", "0", "--log-level", "error"] if command == "serve" else []
    ended = run(*TIEDLM, command, "no-such-model.gguf", *flags)
    assert ended.returncode == 1
    [line] = ended.stderr.splitlines()
    assert "no-such-model.gguf" in line


def test_flags_reach_the_server():
    flags = ("--model-name", "mine", "--max-context", "100", "--max-n", "3", "--max-logprobs", "-1")
    with Server(*flags) as server:
        props = server.ready().http.get("/props").json()
        assert (props["model"], props["context_length"]) == ("mine", 100)
        assert (props["limits"]["max_context"], props["limits"]["max_n"]) == (100, 3)
        answer = server.generate("a", max_tokens=1, logprobs=260)
        assert len(answer["choices"][0]["tokens"][0]["top"]) == 260
        assert server.post("/generate", {"prompt": "a", "n": 4}).status_code == 400


def test_the_whole_vocabulary_of_one_token_may_always_be_asked_for():
    """With 262,144 tokens --max-logprobs -1 was one more than --max-reports allows."""
    with Server("--max-logprobs", "-1", "--max-reports", str(VOCAB_SIZE)) as server:
        server.ready()
        body = {"prompt": "a", "logprobs": VOCAB_SIZE, "max_tokens": 1}
        assert server.post("/generate", body).status_code == 200
        assert server.post("/generate", body | {"max_tokens": 2}).status_code == 400


def test_prompts_are_never_logged():
    with Server("--log-level", "debug") as server:
        server.ready().generate("a secret prompt", max_tokens=2)
        server.post("/generate", {"prompt": "a secret prompt\x01"})
        server.post("/generate", {"prompt": "a secret prompt", "top_p": 9})
        server.signal()
        assert server.wait() == 0
        server.wait_for("end of the log")
        assert "secret" not in "".join(server.log)
        assert SCRIPTED[0] not in "".join(server.log)
