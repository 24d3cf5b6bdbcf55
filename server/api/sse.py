"""Server-sent events: one line of JSON each, and `[DONE]` after the last."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from server.api.encode import dumps
from server.api.faults import error_detail, internal_error
from server.errors import ServeError

log = logging.getLogger(__name__)

HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # nginx would hold events back
]
DONE = b"data: [DONE]\n\n"


def event(value: object) -> bytes:
    """json.dumps escapes every line end, so that an event is one line whatever a model says."""
    return f"data: {dumps(value)}\n\n".encode()


class EventStream(Response):
    """Nothing is sent before the first event is there: until then an error has its own status."""

    def __init__(
        self, events: AsyncGenerator[object, None], headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(media_type="text/event-stream")
        self.events = events
        self.own = [(k.encode(), v.encode()) for k, v in (headers or {}).items()]

    async def __call__(
        self,
        scope: Scope,
        receive: Receive,  # noqa: ARG002  ASGI's own signature
        send: Send,
    ) -> None:
        async with aclosing(self.events):
            first = await anext(self.events)
            await send(
                {"type": "http.response.start", "status": 200, "headers": [*HEADERS, *self.own]}
            )
            try:
                await send_part(send, event(first))
                async for value in self.events:
                    await send_part(send, event(value))
                await send_part(send, DONE)
            except ServeError as error:
                await send_part(send, event({"error": error_detail(error)}))
            except Exception:
                request_id = scope["state"]["request_id"]
                log.exception("internal error in a stream", extra={"request_id": request_id})
                await send_part(send, event({"error": error_detail(internal_error())}))
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def send_part(send: Send, part: bytes) -> None:
    await send({"type": "http.response.body", "body": part, "more_body": True})
