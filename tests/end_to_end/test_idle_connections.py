"""
When a connection that idles is closed, and what a client finds that sends a request just then.

HTTP/1.1 lets either side close at any time (RFC 9112, 9.6), so that a request may be under way to a
server that has closed. What is promised: it was not begun, and no byte of an answer came.
"""

import contextlib
import json
import time

import pytest

from tests.end_to_end.running import Server, read_answer, request_bytes
from tests.scripted import SLOW

HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(scope="module")
def impatient():
    """A second between requests, three within one."""
    limits = ("--keep-alive-timeout", "1", "--read-timeout", "3", "--speculation", "off")
    with Server(*limits) as server:
        yield server.ready()


def seconds_until_closed(connection):
    """And nothing is said before."""
    began = time.monotonic()
    assert connection.recv(1) == b""
    return time.monotonic() - began


def test_a_connection_that_idles_is_closed_after_its_time_without_a_word(impatient):
    with impatient.connect() as connection:
        for _ in range(2):
            connection.sendall(HEALTH)
            assert read_answer(connection).status == 200
        assert seconds_until_closed(connection) > 0.9


def test_so_is_one_whose_last_request_was_answered_before_it_had_arrived(impatient):
    """The rest of the body used to stop the timer, and such a connection was kept for ever."""
    request = request_bytes(b"{}", "/no-such-route")
    with impatient.connect() as connection:
        connection.sendall(request[:-1])
        assert read_answer(connection).status == 404
        connection.sendall(request[-1:])
        assert seconds_until_closed(connection) > 0.9


def test_a_request_that_has_begun_is_not_cut_by_it(impatient):
    with impatient.connect() as connection:
        connection.sendall(HEALTH)
        assert read_answer(connection).status == 200
        connection.sendall(HEALTH[:10])
        late = read_answer(connection)
        assert (late.status, late.error["code"]) == (408, "read_timeout")


def test_an_answer_that_takes_longer_is_not_cut_by_it(impatient):
    body = {"prompt": "ab" + SLOW, "max_tokens": 40, "ignore_eos": True}
    with impatient.connect() as connection:
        connection.sendall(HEALTH)
        assert read_answer(connection).status == 200
        began = time.monotonic()
        connection.sendall(request_bytes(json.dumps(body).encode()))
        assert read_answer(connection).status == 200
        assert time.monotonic() - began > 1


def test_a_request_that_crosses_the_close_was_not_begun_and_got_no_byte(impatient):
    """Sent once the close is seen, as one that is under way arrives after it."""
    with impatient.connect() as connection:
        connection.sendall(HEALTH)
        assert read_answer(connection).status == 200
        seconds_until_closed(connection)
        connection.sendall(request_bytes(b'{"prompt": "ab"}', "/tokenize"))
        answer = b""
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            answer = connection.recv(1)
    assert answer == b""
    counted = impatient.http.get("/metrics").text
    assert 'route="/health"' in counted
    assert 'route="/tokenize"' not in counted
