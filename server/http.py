"""
HTTP/1.1 as this server speaks it: uvicorn's h11 protocol, made strict, bounded and impatient.

What arrives is bounded in bytes and in time before the application is asked: the line and headers,
the body's framing, and how long either may take. A request that cannot be one is answered in the
one error body. It knows no route.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from server.api.faults import error_body, error_headers
from server.api.gate import choose_request_id
from server.errors import BadRequest, HeadersTooLarge, ReadTimeout, ServeError

log = logging.getLogger("server.request")

MAX_PIPELINED = 65536  # bytes after a request that are taken while it is answered
MAX_DISCARDED = 64 * 2**20  # bytes of a body that are still read after it has been refused
LINGER = 2.0  # seconds that a refused client has for reading why, before the connection is cut

Phase = Literal["head", "body"]


@dataclass(frozen=True, slots=True)
class Limits:
    max_header_bytes: int
    read_timeout: float  # seconds
    count: Callable[[str, int], None]  # takes a route and a status


class StrictConnection(h11.Connection):
    """h11's parser, refusing what it would let pass. `refusal` says why an event raised."""

    def __init__(self, max_header_bytes: int) -> None:
        super().__init__(h11.SERVER, max_header_bytes)
        self.max_header_bytes = max_header_bytes
        self.refusal: ServeError | None = None
        self.num_discarded = 0

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        try:
            event = super().next_event()
        except h11.RemoteProtocolError as error:
            self.refusal = self._too_large() if error.error_status_hint == 431 else malformed()
            raise
        if isinstance(event, h11.Request):
            self._check_head(event)
        elif isinstance(event, h11.Data) and self.our_state is not h11.SEND_RESPONSE:
            self._count_discarded(len(event.data))
        elif event is h11.PAUSED and len(self.trailing_data[0]) <= MAX_PIPELINED:
            return h11.NEED_DATA  # reading on is the only way to learn that the client has left
        return event

    def _check_head(self, request: h11.Request) -> None:
        size = len(request.method) + len(request.target)
        size += sum(len(name) + len(value) + 4 for name, value in request.headers)
        names = {name for name, _ in request.headers}
        if size > self.max_header_bytes:
            self._refuse(self._too_large())
        if request.http_version not in (b"1.0", b"1.1"):
            self._refuse(malformed())
        if b"transfer-encoding" in names:
            if b"content-length" in names:
                self._refuse(BadRequest("Content-Length and Transfer-Encoding exclude each other"))
            if request.http_version != b"1.1":
                self._refuse(BadRequest("Transfer-Encoding is of HTTP/1.1 alone"))

    def _count_discarded(self, size: int) -> None:
        self.num_discarded += size
        if self.num_discarded > MAX_DISCARDED:
            self._refuse(malformed())

    def _too_large(self) -> ServeError:
        return HeadersTooLarge(
            f"the request's line and headers are more than {self.max_header_bytes} bytes"
        )

    def _refuse(self, refusal: ServeError) -> None:
        self.refusal = refusal
        raise h11.RemoteProtocolError(refusal.message, error_status_hint=refusal.status)


def malformed() -> ServeError:
    return BadRequest("this is not a request of HTTP/1.1")


class StrictProtocol(H11Protocol):
    """One connection. Its timers: for what is to arrive, and for a reader who does not read."""

    limits: Limits  # set by `protocol_with`

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.conn: StrictConnection = StrictConnection(self.limits.max_header_bytes)
        self.phase: Phase | None = None
        self.arrival_timer: asyncio.TimerHandle | None = None
        self.write_timer: asyncio.TimerHandle | None = None
        self.is_refused = False
        self._expect("head")

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect(None)
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.is_refused:
            return
        super().data_received(data)
        self._watch_arrival()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch_arrival()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.write_timer is None:
            self.write_timer = self.loop.call_later(self.limits.read_timeout, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.write_timer is not None:
            self.write_timer.cancel()
            self.write_timer = None

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  uvicorn's own signature
        self._refuse(self.conn.refusal or malformed())

    def _watch_arrival(self) -> None:
        """
        A request's head, then its body, have --read-timeout seconds each: slow ones are cut off
        too.
        """
        state = self.conn.their_state
        if self.is_refused or self.transport.is_closing():
            self._expect(None)
        elif state is h11.SEND_BODY:
            self._expect("body")
        elif state is h11.IDLE and self.conn.trailing_data[0]:
            self._expect("head")
        else:
            self._expect(None)

    def _expect(self, phase: Phase | None) -> None:
        if phase == self.phase:
            return
        if self.arrival_timer is not None:
            self.arrival_timer.cancel()
            self.arrival_timer = None
        self.phase = phase
        if phase is not None:
            self.arrival_timer = self.loop.call_later(self.limits.read_timeout, self._is_late)

    def _is_late(self) -> None:
        if self.phase == "head" and not self.conn.trailing_data[0]:
            self.transport.close()  # it never began a request: there is nothing to answer
            return
        self._refuse(
            ReadTimeout(
                f"the request's {self.phase} did not arrive within {self.limits.read_timeout:g} s"
            )
        )

    def _refuse(self, refusal: ServeError) -> None:
        """
        Answer where no answer has begun, and cut the connection once the client could read it.
        """
        self.is_refused = True
        self._expect(None)
        is_begun = self.cycle is not None and not self.cycle.response_complete
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.abort()
            return
        request_id = choose_request_id(self.headers or [])
        self.transport.write(self._answer(refusal, request_id))
        log.info("refused unread: %s %s id=%s", refusal.status, refusal.code, request_id)
        if is_begun:
            self.cycle.disconnected = True  # the application learns it as a client that left
            self.cycle.message_event.set()
        else:
            self.limits.count("unmatched", refusal.status)
        # Closing now, with more of the request still arriving, would reset the connection and take
        # the answer with it. So: say that nothing follows, and let the client go first.
        self.transport.write_eof()
        self.loop.call_later(LINGER, self.transport.abort)

    def _answer(self, refusal: ServeError, request_id: str) -> bytes:
        body = error_body(refusal)
        headers = {
            **error_headers(refusal),
            "content-length": str(len(body)),
            "connection": "close",
            "x-request-id": request_id,
        }
        response = h11.Response(status_code=refusal.status, headers=list(headers.items()))
        events = (response, h11.Data(data=body), h11.EndOfMessage())
        return b"".join(self.conn.send(event) or b"" for event in events)


def protocol_with(limits: Limits) -> type[StrictProtocol]:
    return type("BoundProtocol", (StrictProtocol,), {"limits": limits})
