"""Chunks, read in pieces of any size: as they are meant, or not at all."""

from itertools import pairwise

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.framing import MAX_CHUNKS, MAX_SIZE_LINE, StrictConnection

HEAD = b"POST /generate HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
EXTENSIONS = st.sampled_from([b"", b";a", b";a=b", b' ; a="b c"', b"  "])
TRAILERS = st.sampled_from([b"", b"X: y\r\n", b"Content-Length: 5\r\nHost: a\r\n"])
FIELDS = st.sampled_from([b"Host: a", b"Content-Length: 5", b"Transfer-Encoding: chunked"])
PIECES = FIELDS | st.sampled_from(
    [b"GET / HTTP/1.1", b"POST", b" ", b":", b"\r\n", b"\n", b"\t", b"\0"]
)


def connection(max_body_bytes=10**6):
    return StrictConnection(16384, max_body_bytes)


def read(made, wire, cuts=()):
    """The body, all of it, of a request that arrives cut into these pieces; None while not all."""
    body, places = b"", [0, *sorted(cuts), len(wire)]
    for start, end in pairwise(places):
        if start == end:
            continue
        made.receive_data(wire[start:end])
        while (event := made.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
            if isinstance(event, h11.EndOfMessage):
                return body
            body += bytes(event.data) if isinstance(event, h11.Data) else b""
    return None


def chunk(data, extension=b""):
    return b"%x%s\r\n%s\r\n" % (len(data), extension, data)


@given(
    parts=st.lists(st.binary(min_size=1, max_size=40), max_size=8),
    extension=EXTENSIONS,
    trailer=TRAILERS,
    data=st.data(),
)
def test_a_body_is_the_same_however_it_is_cut(parts, extension, trailer, data):
    chunks = b"".join(chunk(part, extension) for part in parts)
    wire = HEAD + chunks + b"0\r\n" + trailer + b"\r\n"
    cuts = data.draw(st.lists(st.integers(0, len(wire)), max_size=12))
    assert read(connection(), wire, cuts) == b"".join(parts)
    assert read(connection(), wire, range(len(wire))) == b"".join(parts)


@given(parts=st.lists(st.binary(min_size=1, max_size=40), max_size=8))
def test_a_body_is_what_h11_reads_too(parts):
    wire = HEAD + b"".join(map(chunk, parts)) + b"0\r\n\r\n"
    assert read(connection(), wire) == read(h11.Connection(h11.SERVER), wire)


@pytest.mark.parametrize(
    "body",
    [
        b"f" * 17,  # no number of bytes has so many digits
        b"f" * 17 + b"\r\n",
        b"5\n",
        b"-5\r\n",
        b"0x5\r\n",
        b"1_0\r\n",
        b" 5\r\n",
        b"5 5\r\n",
        b"\r\n",
        b"5;a\x00b\r\n",
        b"5;a=" + b"b" * MAX_SIZE_LINE,
        b"5;a=" + b"b" * MAX_SIZE_LINE + b"\r\n",
        b"5\r\nabcdefg",
        b"5\r\nabcde\n0\r\n\r\n",
        b"0\r\nno trailer\r\n\r\n",
    ],
)
def test_what_is_no_chunk_is_refused_without_waiting_for_more(body):
    for cuts in ((), range(len(HEAD) + len(body))):
        made = connection()
        with pytest.raises(h11.RemoteProtocolError):
            read(made, HEAD + body, cuts)
        assert made.refusal.status == 400


def test_a_chunk_larger_than_any_body_is_refused_when_it_is_announced():
    made = connection(max_body_bytes=1000)
    with pytest.raises(h11.RemoteProtocolError):
        read(made, HEAD + b"ffffffffffffffff\r\n")
    assert (made.refusal.status, made.refusal.code) == (413, "body_too_large")
    assert "18446744073709551615" in made.refusal.message
    assert "1000" in made.refusal.message


def test_the_number_of_chunks_is_bounded():
    assert read(connection(), HEAD + chunk(b"a") * (MAX_CHUNKS - 1) + b"0\r\n\r\n")
    made = connection()
    with pytest.raises(h11.RemoteProtocolError):
        read(made, HEAD + chunk(b"a") * (MAX_CHUNKS + 1))
    assert str(MAX_CHUNKS) in made.refusal.message


@given(st.binary(max_size=200))
def test_any_bytes_after_a_head_are_a_body_or_refused_and_nothing_else_is_raised(garbage):
    made = connection()
    try:
        read(made, HEAD + garbage)
    except h11.RemoteProtocolError:
        assert made.refusal is not None


@given(st.lists(PIECES, max_size=20))
def test_any_head_is_read_or_refused_and_nothing_else_is_raised(pieces):
    made = connection()
    try:
        read(made, b"".join(pieces) + b"\r\n\r\n")
    except h11.RemoteProtocolError:
        assert made.refusal is not None
