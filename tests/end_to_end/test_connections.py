"""More connections than --max-connections: who is served, who is closed, who is told."""

import contextlib
import json
import socket

from tests.end_to_end.running import Server, eventually, read_answer, request_bytes, run_command
from tests.scripted import SLOW

OK = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
BUSY = {"prompt": "a" + SLOW, "max_tokens": 200, "ignore_eos": True, "stream": True}


def is_closed(connection):
    with contextlib.suppress(ConnectionResetError):
        return connection.recv(1) == b""
    return True


def test_the_connection_that_has_waited_longest_makes_room():
    with Server("--max-connections", "3") as server, contextlib.ExitStack() as stack:
        server.ready().http.close()
        silent, kept, half = (stack.enter_context(server.connect()) for _ in range(3))
        kept.sendall(OK)
        assert read_answer(kept).status == 200
        half.sendall(OK[:20])
        assert server.raw(OK).status == 200
        assert is_closed(silent)
        kept.sendall(OK)
        assert read_answer(kept).status == 200, "one that was asked something since is kept"


def test_a_request_half_sent_is_told_why_it_is_given_up():
    with Server("--max-connections", "1") as server, server.ready().connect() as half:
        server.http.close()
        half.sendall(OK + OK[:20])  # in one piece: with the first one's answer it has been read
        assert read_answer(half).status == 200
        assert server.raw(OK).status == 200
        answer = read_answer(half)
        assert (answer.status, answer.error["code"]) == (429, "queue_full")
        assert "1 connections are open" in answer.error["message"]
        assert int(answer.headers["retry-after"]) >= 1


def test_where_all_are_being_answered_the_newcomer_is_told_at_once():
    with Server("--max-connections", "2") as server, contextlib.ExitStack() as stack:
        server.ready().http.close()
        streams = [stack.enter_context(server.connect()) for _ in range(2)]
        for stream in streams:
            stream.sendall(request_bytes(json.dumps(BUSY).encode()))
            assert stream.recv(65536).startswith(b"HTTP/1.1 200")
        answer = server.raw(OK)
        assert (answer.status, answer.error["code"]) == (429, "queue_full")
        streams[0].close()
        eventually(lambda: server.raw(OK).status == 200)
        assert streams[1].recv(65536), "the other one is answered all the while"


def test_a_thousand_silent_connections_keep_nobody_out():
    with Server("--max-connections", "200") as server, contextlib.ExitStack() as stack:
        server.ready().http.close()
        for _ in range(1000):
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
        assert server.raw(OK).status == 200


def test_more_connections_than_the_system_allows_files_is_one_line_and_a_failure():
    ended = run_command("sh", "-c", "ulimit -n 300; exec python -m server serve --port 0")
    assert ended.returncode == 1
    assert ended.stderr == (
        "tiedlm: --max-connections 1024 may need 1536 open files; the system allows this process "
        "300\n"
    )
