"""
Where one request ends and the next begins: h11's parser, refusing what it would let pass.

Whoever stands before this server must see the same requests in the same bytes. So a head has one
reading only, and a body in chunks is read here, by a reader that is bounded in what a chunk may
announce and in how many there may be. It knows neither sockets nor time.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NoReturn

import h11
from h11._receivebuffer import ReceiveBuffer

from server.errors import BadRequest, BodyTooLarge, HeadersTooLarge, ServeError

MAX_PIPELINED = 65536  # bytes after a request that are taken while it is answered
MAX_DISCARDED = 64 * 2**20  # bytes of a body that are still read after it has been refused
MAX_CHUNKS = 65536  # of one body: each costs some microseconds of the event loop
MAX_SIZE_LINE = 1024  # bytes of a chunk's size and extensions

LENGTH = re.compile(rb"^content-length:[ \t]*([^\r]*)", re.IGNORECASE | re.MULTILINE)
SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[\t\x20-\xff]*)?\r\n")
SIZE_LINE_BEGUN = re.compile(rb"[0-9A-Fa-f]{0,16}|[0-9A-Fa-f]{1,16}[ \t]*(?:;[\t\x20-\xff]*)?\r?")


def malformed() -> ServeError:
    return BadRequest("this is not a request of HTTP/1.1")


class StrictConnection(h11.Connection):
    """`refusal` says why an event raised."""

    def __init__(self, max_header_bytes: int, max_body_bytes: int) -> None:
        super().__init__(h11.SERVER, max_header_bytes)
        self.max_header_bytes, self.max_body_bytes = max_header_bytes, max_body_bytes
        self.refusal: ServeError | None = None
        self.num_discarded = 0

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        arrived = self.trailing_data[0] if self.their_state is h11.IDLE else b""
        try:
            event = super().next_event()
        except h11.RemoteProtocolError as error:
            hint = error.error_status_hint
            self.refusal = self.refusal or (self._too_large() if hint == 431 else malformed())
            raise
        if isinstance(event, h11.Request):
            self._check_head(event, arrived[: len(arrived) - len(self.trailing_data[0])])
        elif isinstance(event, h11.Data) and self.our_state is not h11.SEND_RESPONSE:
            self._count_discarded(len(event.data))
        elif event is h11.PAUSED and len(self.trailing_data[0]) <= MAX_PIPELINED:
            return h11.NEED_DATA  # reading on is the only way to learn that the client has left
        return event

    def _check_head(self, request: h11.Request, head: bytes) -> None:
        """`head` is the request's as it came: h11 has merged and unfolded what it tells of it."""
        if len(head) > self.max_header_bytes:
            self._refuse(self._too_large())
        if request.http_version not in (b"1.0", b"1.1"):
            self._refuse(malformed())
        if re.search(rb"(?<!\r)\n|\n[ \t]", head):
            self._refuse(
                BadRequest("each line of a request's head ends with CR LF, none is folded")
            )
        lengths = LENGTH.findall(head)
        if len(lengths) > 1 or any(not length.strip(b" \t").isdigit() for length in lengths):
            self._refuse(BadRequest("Content-Length is given once, and is one whole number"))
        if any(name == b"transfer-encoding" for name, _ in request.headers):
            if lengths:
                self._refuse(BadRequest("Content-Length and Transfer-Encoding exclude each other"))
            if request.http_version != b"1.1":
                self._refuse(BadRequest("Transfer-Encoding is of HTTP/1.1 alone"))
            self._reader = Chunks(self._check_chunk)

    def _check_chunk(self, number: int, size: int) -> None:
        """When it is announced. After an answer has begun, all that comes is merely discarded."""
        if self.our_state is not h11.SEND_RESPONSE:
            return
        if size > self.max_body_bytes:
            self._refuse(
                BodyTooLarge(
                    f"a chunk of the body is {size} bytes; at most {self.max_body_bytes} are "
                    "allowed for all of it"
                )
            )
        if number > MAX_CHUNKS:
            self._refuse(BadRequest(f"the body has more than the {MAX_CHUNKS} chunks allowed"))

    def _count_discarded(self, size: int) -> None:
        self.num_discarded += size
        if self.num_discarded > MAX_DISCARDED:
            self._refuse(malformed())

    def _too_large(self) -> ServeError:
        return HeadersTooLarge(
            f"the request's line and headers are more than {self.max_header_bytes} bytes"
        )

    def _refuse(self, refusal: ServeError) -> NoReturn:
        self.refusal = refusal
        raise h11.RemoteProtocolError(refusal.message, error_status_hint=refusal.status)


class Chunks:
    """
    What h11 calls to read a body in chunks: all that has arrived becomes one event, so that chunks
    of one byte cost a loop here and not a turn of the protocol each.
    """

    def __init__(self, check: Callable[[int, int], None]) -> None:
        """`check` takes a chunk's number, from 1, and the size that it announces."""
        self.check = check
        self.num_chunks = 0
        self.num_left = 0  # bytes of this chunk that are still to come
        self.end_due = b""  # what must follow a chunk's last byte
        self.is_last = False

    def __call__(self, buffer: ReceiveBuffer) -> h11.Data | h11.EndOfMessage | None:
        parts = []
        while (part := self._next_part(buffer)) is not None:
            parts.append(part)
        if parts:
            return h11.Data(data=b"".join(parts))
        return self._trailer(buffer) if self.is_last else None

    def read_eof(self) -> NoReturn:
        raise h11.RemoteProtocolError("the client closed before the last chunk")

    def _next_part(self, buffer: ReceiveBuffer) -> bytes | None:
        if not self.num_left and not (self._end(buffer) and self._begin(buffer)):
            return None
        part = buffer.maybe_extract_at_most(self.num_left)
        if part is None:
            return None
        self.num_left -= len(part)
        self.end_due = b"" if self.num_left else b"\r\n"
        return bytes(part)

    def _end(self, buffer: ReceiveBuffer) -> bool:
        """Whether the chunk before is ended."""
        found = buffer.maybe_extract_at_most(len(self.end_due)) if self.end_due else b""
        if found and not self.end_due.startswith(found):
            raise h11.RemoteProtocolError("a chunk is longer than it announced")
        self.end_due = self.end_due[len(found or b"") :]
        return not self.end_due

    def _begin(self, buffer: ReceiveBuffer) -> bool:
        """Whether there is a chunk whose bytes may follow."""
        if self.is_last:
            return False
        line = buffer.maybe_extract_next_line()
        if line is None:
            begun = bytes(buffer)
            if len(begun) > MAX_SIZE_LINE or not SIZE_LINE_BEGUN.fullmatch(begun):
                raise h11.RemoteProtocolError("this begins no chunk")
            return False
        found = SIZE_LINE.fullmatch(line)
        if found is None or len(line) > MAX_SIZE_LINE:
            raise h11.RemoteProtocolError("this begins no chunk")
        self.num_left = int(found[1], 16)
        self.num_chunks += 1
        self.is_last = self.num_left == 0
        self.check(self.num_chunks, self.num_left)
        return not self.is_last

    def _trailer(self, buffer: ReceiveBuffer) -> h11.EndOfMessage | None:
        """Its fields are dropped: nothing here reads any, and none may pass for a header."""
        lines = buffer.maybe_extract_lines()
        if lines is None:
            return None
        if any(b":" not in line for line in lines):
            raise h11.RemoteProtocolError("this is no trailer")
        return h11.EndOfMessage()
