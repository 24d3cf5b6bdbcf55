"""
HTTP/1.1 as this server speaks it: uvicorn's h11 protocol, made strict, bounded and impatient.

What arrives is bounded in bytes and in time before the application is asked: what server/framing.py
refuses, how long a request may take to arrive, and how many connections there may be. A request
that cannot be one is answered in the one error body. It knows no route.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Literal

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from server.api.faults import error_body, error_headers
from server.api.gate import choose_request_id
from server.errors import QueueFull, ReadTimeout, ServeError
from server.framing import StrictConnection, malformed

log = logging.getLogger("server.request")

LINGER = 2.0  # seconds that a refused client has for reading why, before the connection is cut
MAX_LINGERING = 256  # connections beyond --max-connections that are still told why

Phase = Literal["head", "body"]


@dataclass(frozen=True, slots=True)
class Limits:
    max_header_bytes: int
    max_body_bytes: int
    max_connections: int
    read_timeout: float  # seconds
    count: Callable[[str, int], None]  # takes a route and a status


class StrictProtocol(H11Protocol):
    """One connection. Its timers: for what is to arrive, and for a reader who does not read."""

    limits: Limits  # set by `protocol_with`

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(HeldHead(transport, self.loop))  # type: ignore[arg-type]
        self.conn: StrictConnection = StrictConnection(
            self.limits.max_header_bytes, self.limits.max_body_bytes
        )
        self.phase: Phase | None = None
        self.arrival_timer: asyncio.TimerHandle | None = None
        self.write_timer: asyncio.TimerHandle | None = None
        self.is_refused = False
        self.waiting_since = self.loop.time()
        self._expect("head")
        if len(self.connections) > self.limits.max_connections:
            self._make_room()

    def _make_room(self) -> None:
        """
        One connection goes: that which has waited longest for its client to send, so that those who
        hold connections without asking anything cannot keep others out. Where all others are being
        answered it is this one.
        """
        others = (other for other in self.connections if isinstance(other, StrictProtocol))
        waiting = [other for other in others if other is not self and other.is_waiting]
        goes = min(waiting, key=lambda other: other.waiting_since, default=self)
        if goes is not self and not goes.conn.trailing_data[0] and goes.phase != "body":
            goes.transport.close()  # it asked for nothing: there is nothing to answer
            return
        goes._refuse(
            QueueFull(f"{self.limits.max_connections} connections are open, the most allowed")
        )

    @property
    def is_waiting(self) -> bool:
        """For a request to begin, or to arrive whole."""
        is_asked = self.conn.their_state not in (h11.IDLE, h11.SEND_BODY)
        return not (is_asked or self.is_refused or self.transport.is_closing())

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
        self.waiting_since = self.loop.time()
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
            self._watch_idling()

    def _watch_idling(self) -> None:
        """
        uvicorn's timer starts with an answer's end, and what arrives of that request later stops it
        for good: the rest of a body that was refused unread.
        """
        is_idle = self.conn.their_state is self.conn.our_state is h11.IDLE
        if is_idle and self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

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
        is_crowded = len(self.connections) > self.limits.max_connections + MAX_LINGERING
        self.transport.write_eof()
        self.loop.call_later(0 if is_crowded else LINGER, self.transport.abort)

    def _answer(self, refusal: ServeError, request_id: str) -> bytes:
        body = error_body(refusal)
        headers = {
            **error_headers(refusal),
            "content-length": str(len(body)),
            "connection": "close",
            "x-request-id": request_id,
        }
        response = h11.Response(
            status_code=refusal.status,
            headers=list(headers.items()),
            reason=HTTPStatus(refusal.status).phrase,
        )
        events = (response, h11.Data(data=body), h11.EndOfMessage())
        return b"".join(self.conn.send(event) or b"" for event in events)


class HeldHead:
    """
    A transport that sends an answer's head together with what follows it at once, if anything does:
    one packet, and one time that the client wakes up.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._head = b""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  whatever else a transport can
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if self._head:
            data, self._head = self._head + data, b""
        elif data.startswith(b"HTTP/1.1 "):
            self._head = data
            self._loop.call_soon(self._flush)
            return
        self._transport.write(data)

    def write_eof(self) -> None:
        self._flush()
        self._transport.write_eof()

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._head:
            self.write(b"")


def protocol_with(limits: Limits) -> type[StrictProtocol]:
    return type("BoundProtocol", (StrictProtocol,), {"limits": limits})
