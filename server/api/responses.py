"""
Answers as they are sent, and the statuses that a route may answer beside 200, for the OpenAPI
document: all in the one error body.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi.responses import Response
from starlette.types import Receive, Scope, Send

from server.api.encode import LARGE, dumps, encode_bytes
from server.api.schemas.answers import ErrorBody

Json = dict[str, Any]
Responses = dict[int | str, dict[str, Any]]

MEANINGS = {
    400: "The request is at fault: the message names the value and the limit",
    401: "Keys are set and none matches",
    404: "No such path",
    405: "No such method on this path; see Allow",
    408: "The request did not arrive whole within --read-timeout",
    413: "The body is larger than --max-body-bytes",
    415: "The body is not application/json in UTF-8, or is encoded",
    421: "Host is not allowed",
    429: "The queue is full, or --max-connections are open; see Retry-After",
    431: "The headers are larger than --max-header-bytes",
    500: "A bug of this server",
    503: "The model is being loaded, or the server is shutting down; see Retry-After",
}


def errors(*statuses: int) -> Responses:
    return {status: {"model": ErrorBody, "description": MEANINGS[status]} for status in statuses}


PLAIN_ERRORS = errors(400, 401, 404, 405, 408, 413, 421, 429, 431, 500)
MODEL_ERRORS = errors(400, 401, 404, 405, 408, 413, 415, 421, 429, 431, 500, 503)


async def json_answer(
    answer: Json, num_items: int, headers: Mapping[str, str] | None = None
) -> Response:
    """`num_items` tokens or numbers: a large answer is encoded off the event loop."""
    if num_items <= LARGE // 16:
        return Response(dumps(answer), 200, headers, "application/json")
    return Parts(await asyncio.to_thread(encode_bytes, answer), "application/json", headers)


class Parts(Response):
    """A body that is never joined: it may be many megabytes."""

    def __init__(
        self,
        parts: Sequence[bytes | memoryview],
        media_type: str,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        size = {"content-length": str(sum(map(len, parts)))}
        super().__init__(headers={**size, **(headers or {})}, media_type=media_type)
        self.parts = parts

    async def __call__(
        self,
        scope: Scope,  # noqa: ARG002  ASGI's own signature
        receive: Receive,  # noqa: ARG002
        send: Send,
    ) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        for part in self.parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
