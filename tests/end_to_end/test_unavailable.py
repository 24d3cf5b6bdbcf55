"""Rows of the error table that no request is at fault for, through the socket."""

import json
import threading

from tests.end_to_end.running import Server, check_error, request_bytes
from tests.scripted import SLOW


def test_a_full_queue_is_told_at_once():
    flags = ("--max-queue", "1", "--max-batch", "1")
    with Server(*flags) as server:
        server.ready()
        body = {"prompt": "a" + SLOW, "max_tokens": 200, "ignore_eos": True}
        running = [threading.Thread(target=abandon, args=(server, body)) for _ in range(2)]
        for thread in running:
            thread.start()
        while server.metric("num_requests_running") + server.metric("num_requests_waiting") < 2:
            pass
        answer = server.post("/generate", {"prompt": "b", "max_tokens": 1})
        check_error(answer, 429, "overloaded_error", "queue_full")
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.elapsed.total_seconds() < 0.25
        server.process.kill()
        for thread in running:
            thread.join()


def abandon(server, body):
    """A client whose answer never comes: the server is killed under it."""
    with server.connect() as connection:
        connection.sendall(request_bytes(json.dumps(body).encode()))
        connection.recv(1)


def test_a_request_that_takes_too_long_is_ended():
    with Server("--request-timeout", "0.3") as server:
        server.ready()
        answer = server.post("/generate", {"prompt": "a" + SLOW, "max_tokens": 100})
        assert answer.status_code in (429, 503)
        assert "0.3" in answer.json()["error"]["message"]


def test_while_loading_the_server_lives_but_is_not_ready():
    with Server("slow-to-load") as server:
        assert server.http.get("/health").status_code == 200
        for answer in (
            server.http.get("/ready"),
            server.http.get("/props"),
            server.http.get("/tokenizer_info"),
            server.post("/generate", {"prompt": "a"}),
            server.post("/tokenize", {"prompt": "a"}),
        ):
            check_error(answer, 503, "server_error", "loading")
            assert int(answer.headers["retry-after"]) >= 1
        assert server.http.get("/metrics").status_code == 200
        assert server.http.get("/openapi.json").status_code == 200
        server.signal()
        assert server.wait() == 0


def test_a_model_that_cannot_be_loaded_is_one_line_and_a_failure():
    with Server("broken") as server:
        assert server.wait() == 1
        server.wait_for("end of the log")
        [line] = [line for line in server.log if "tiedlm: " in line]
        assert line == "tiedlm: broken.gguf: the file ends after 12 bytes\n"
        assert not any("Traceback" in line for line in server.log)
