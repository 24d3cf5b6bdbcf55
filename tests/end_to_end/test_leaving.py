"""A client that leaves frees its place, and its neighbours notice nothing."""

import json
import socket
import struct
import time

import pytest

from tests.end_to_end.running import eventually, is_idle, read_answer, request_bytes
from tests.scripted import SLOW

LONG = {"prompt": "ab" + SLOW, "max_tokens": 200, "ignore_eos": True}


def leave(connection, how):
    if how == "reset":
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@pytest.mark.parametrize("how", ["fin", "reset"])
@pytest.mark.parametrize("is_stream", [False, True])
def test_a_client_that_leaves_frees_its_place(server, how, is_stream):
    eventually(lambda: is_idle(server))
    connection = server.connect()
    connection.sendall(request_bytes(json.dumps(LONG | {"stream": is_stream}).encode()))
    eventually(lambda: server.metric("num_requests_running") == 1)
    began = time.monotonic()
    leave(connection, how)
    eventually(lambda: is_idle(server))
    assert time.monotonic() - began < 2  # to its end it would have run for ten seconds


def test_a_client_that_leaves_with_another_request_sent_ahead_frees_its_place(server):
    eventually(lambda: is_idle(server))
    connection = server.connect()
    connection.sendall(request_bytes(json.dumps(LONG).encode()) * 2)
    eventually(lambda: server.metric("num_requests_running") == 1)
    connection.close()
    began = time.monotonic()
    eventually(lambda: is_idle(server))
    assert time.monotonic() - began < 2


def test_a_client_that_leaves_while_uploading_leaves_nothing(server):
    request = request_bytes(json.dumps(LONG).encode(), "/generate", "X-Request-Id: uploader")
    connection = server.connect()
    connection.sendall(request[:-5])
    connection.close()
    server.wait_for("POST /generate 499 .* id=uploader")
    assert is_idle(server)


def test_neighbours_of_one_who_leaves_are_answered_as_alone(server):
    body = {"prompt": "abc" + SLOW, "max_tokens": 20, "temperature": 0.9, "seed": 5, "logprobs": 2}
    alone = server.post("/generate", body).json()["choices"]
    connections = [server.connect() for _ in range(8)]
    for connection in connections:
        connection.sendall(request_bytes(json.dumps(body).encode()))
    eventually(lambda: server.metric("num_requests_running") == 8)
    connections.pop(3).close()
    for connection in connections:
        with connection:
            assert json.loads(read_answer(connection).body)["choices"] == alone
    eventually(lambda: is_idle(server))


def test_the_server_answers_others_while_one_request_runs(server):
    connection = server.connect()
    connection.sendall(request_bytes(json.dumps(LONG).encode()))
    eventually(lambda: server.metric("num_requests_running") == 1)
    for path in ("/health", "/ready", "/metrics", "/version", "/props"):
        assert server.http.get(path).elapsed.total_seconds() < 0.25
    connection.close()
    eventually(lambda: is_idle(server))
