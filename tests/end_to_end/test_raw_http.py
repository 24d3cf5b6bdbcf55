"""What no well-behaved client sends."""

import contextlib
import json
import socket
import time

import pytest

from tests.end_to_end.running import eventually, is_idle, read_answer, request_bytes, send_all

POST = b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
OK = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


def check(answer, status, code):
    assert answer.status == status
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    assert (answer.error["type"], answer.error["code"]) == ("invalid_request_error", code)


@pytest.fixture(autouse=True)
def still_alive(server):
    yield
    assert server.raw(OK).status == 200


@pytest.mark.parametrize("size", [17_000, 100_000, 8_000_000])
@pytest.mark.parametrize("where", ["value", "name", "many", "line"])
def test_headers_too_large_are_refused(server, size, where):
    head = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"
    requests = {
        "value": head + b"X-Long: " + b"a" * size,
        "name": head + b"a" * size + b": x",
        "many": head + b"\r\n".join([b"X: y"] * (size // 6)),
        "line": b"GET /" + b"a" * size + b" HTTP/1.1\r\nHost: localhost",
    }
    before = time.monotonic()
    check(server.raw(requests[where] + b"\r\n\r\n"), 431, "headers_too_large")
    assert time.monotonic() - before < 2


@pytest.mark.parametrize(
    "request_",
    [
        b"GARBAGE\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : localhost\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        POST + b"Content-Length: -1\r\n\r\n",
        POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        POST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
        POST + b"Content-Length: 2, 2\r\n\r\n{}",
        POST + b"X-Folded: a\r\n b\r\nContent-Length: 2\r\n\r\n{}",
        OK.replace(b"\r\n", b"\n"),
        POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
        POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\n2\n{}\n0\n\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 17,
    ],
)
def test_what_is_no_request_is_refused_and_cut(server, request_):
    with server.connect() as connection:
        send_all(connection, request_)
        check(read_answer(connection), 400, "invalid_value")
        assert connection.recv(1) == b""


@pytest.mark.parametrize(
    "begun",
    [
        b"GET /hea",
        b"GET /health HTTP/1.1\r\nHost: local",
        POST + b"Content-Length: 20\r\n\r\n{",
        POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{",
    ],
)
def test_a_request_half_sent_is_given_up(server, begun):
    before = time.monotonic()
    check(server.raw(begun), 408, "read_timeout")
    assert 0.9 < time.monotonic() - before < 5


def test_a_request_that_trickles_in_is_given_up_all_the_same(server):
    with server.connect() as connection:
        connection.settimeout(0.1)
        before = time.monotonic()
        for byte in OK * 10:
            send_all(connection, bytes([byte]))
            try:
                data = connection.recv(65536)
                break
            except TimeoutError:
                continue
        assert b" 408 " in data
        assert time.monotonic() - before < 5


def test_a_connection_that_says_nothing_is_closed(server):
    with server.connect() as connection:
        assert connection.recv(1) == b""


def test_an_answer_before_the_body_is_whole_does_not_wait_for_it(server):
    head = request_bytes(b"", "/generate").replace(
        b"Content-Length: 0", b"Content-Length: 90000000"
    )
    before = time.monotonic()
    answer = server.raw(head + b"{")
    check(answer, 413, "body_too_large")
    assert time.monotonic() - before < 0.9


def test_a_chunk_too_large_is_refused_when_it_is_announced(server):
    before = time.monotonic()
    answer = server.raw(POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 16 + b"\r\n{")
    check(answer, 413, "body_too_large")
    assert time.monotonic() - before < 0.9  # --read-timeout is 1


def test_a_body_in_chunks_of_one_byte_holds_nobody_up(server):
    """Each chunk used to be a turn of the protocol, 33 microseconds of the event loop."""
    body = json.dumps({"prompt": "ab", "max_tokens": 1}).encode().ljust(60_000)
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
    before = time.monotonic()
    answer = server.raw(POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")
    assert answer.status == 200
    assert time.monotonic() - before < 2


def test_a_refused_upload_is_cut_when_it_does_not_end(server):
    head = request_bytes(b"", "/generate").replace(
        b"Content-Length: 0", b"Content-Length: 90000000"
    )
    with server.connect() as connection:
        send_all(connection, head + b"{")
        check(read_answer(connection), 413, "body_too_large")
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(1) == b""


def test_requests_in_one_piece_are_answered_in_order(server):
    with server.connect() as connection:
        connection.sendall(
            OK.replace(b"/health", b"/version") + OK + OK.replace(b"/health", b"/no")
        )
        data = b""
        while data.count(b"HTTP/1.1 ") < 3 or not data.endswith(b"}}"):
            data += connection.recv(65536)
    places = [data.index(mark) for mark in (b'"version"', b'"status"', b'"not_found"')]
    assert places == sorted(places)


def test_a_connection_is_kept_for_the_next_request(server):
    body = json.dumps({"prompt": "ab", "max_tokens": 1, "temperature": 0}).encode()
    with server.connect() as connection:
        for _ in range(3):
            connection.sendall(request_bytes(body))
            assert read_answer(connection).status == 200


def test_expect_100_continue_is_answered_before_the_body(server):
    body = json.dumps({"prompt": "ab", "max_tokens": 1}).encode()
    head, _, _ = request_bytes(body, "/generate", "Expect: 100-continue").partition(b"\r\n\r\n")
    with server.connect() as connection:
        connection.sendall(head + b"\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 100 ")
        connection.sendall(body)
        assert read_answer(connection).status == 200


def test_head_is_answered_where_get_is_and_without_a_body(server):
    for path in ("/health", "/ready", "/metrics", "/version", "/props", "/openapi.json", "/"):
        with server.connect() as connection:
            request = f"HEAD {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            connection.sendall(request.encode())
            data = b""
            while part := connection.recv(65536):
                data += part
        head, end, body = data.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert (end, body) == (b"\r\n\r\n", b"")


def test_an_upgrade_is_not_made(server):
    answer = server.raw(OK[:-2] + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    assert answer.status == 200


def test_request_ids_are_the_clients_or_new(server):
    assert server.raw(OK[:-2] + b"X-Request-Id: mine-1\r\n\r\n").headers["x-request-id"] == "mine-1"
    for wrong in (b"x" * 129, b"\xe9", b""):
        answer = server.raw(OK[:-2] + b"X-Request-Id: " + wrong + b"\r\n\r\n")
        assert len(answer.headers["x-request-id"]) == 32


def test_a_reader_that_stalls_is_cut_and_its_place_freed(server):
    fields = {"n": 60, "max_tokens": 100, "logprobs": 20, "ignore_eos": True}
    body = json.dumps({"prompt": "a" * 100, "stream": True} | fields).encode()
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(30)
        connection.connect(("127.0.0.1", server.port))
        connection.sendall(request_bytes(body, "/generate", "X-Request-Id: stalled"))
        server.wait_for("POST /generate 200 .* id=stalled")
        eventually(lambda: is_idle(server))
