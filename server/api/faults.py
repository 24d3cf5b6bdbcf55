"""Every failure as the one error body, small and free of internals, whatever raised it."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from server.errors import BadRequest, MethodNotAllowed, NotFound, ServeError, UnknownField

log = logging.getLogger(__name__)

# A character is at most 12 bytes of JSON, so that the body stays under the documented 8 KB.
MAX_MESSAGE = 500
MAX_PARAM = 100
MAX_ECHO = 200


def shorten(value: object, limit: int = MAX_ECHO) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def error_detail(error: ServeError) -> dict[str, Any]:
    return {
        "message": shorten(error.message, MAX_MESSAGE),
        "type": error.type,
        "param": None if error.param is None else shorten(error.param, MAX_PARAM),
        "code": error.code,
    }


def error_body(error: ServeError) -> bytes:
    return json.dumps({"error": error_detail(error)}).encode()


def error_headers(error: ServeError) -> dict[str, str]:
    headers = {"content-type": "application/json"}
    if error.retry_after is not None:
        headers["retry-after"] = str(error.retry_after)
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    return headers


def error_response(error: ServeError, headers: Mapping[str, str] | None = None) -> Response:
    return Response(error_body(error), error.status, {**error_headers(error), **(headers or {})})


def internal_error() -> ServeError:
    return ServeError("The server failed to answer this request; the failure has been logged.")


def from_validation(errors: Sequence[Mapping[str, Any]]) -> BadRequest:
    """What is wrong first, an unknown field before all else."""
    unknown = [e for e in errors if e["type"] == "extra_forbidden"]
    first = (unknown or errors)[0]
    param = ".".join(str(part) for part in first["loc"] if part != "body") or None
    if unknown:
        return UnknownField(f"{shorten(param or '')} is not a field of this route", param)
    if first["type"] == "missing":
        return BadRequest(f"{param or 'a JSON body'} is required", param)
    if param is None:
        return BadRequest("the body must be a JSON object")
    reason = first["msg"].removeprefix("Input ").removeprefix("Value error, ")
    return BadRequest(f"{shorten(param, MAX_PARAM)} {reason}, not {echo(first['input'])}", param)


def echo(value: object) -> str:
    """A refused value as JSON, its containers not looked into."""
    if isinstance(value, (list, dict)):
        return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value)}"
    return shorten(json.dumps(value if not isinstance(value, str) else value[:MAX_ECHO]), MAX_ECHO)


async def on_serve_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, ServeError)
    return error_response(error)


async def on_validation_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return error_response(from_validation(error.errors()))


async def on_http_error(request: Request, error: Exception) -> Response:
    """What the router raises by itself: no such path, or no such method on it."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        allow = sorted(set((error.headers or {}).get("Allow", "").split(", ")) - {""})
        allow += ["HEAD"] if "GET" in allow else []
        method = shorten(request.scope["method"], 40)
        refusal = MethodNotAllowed(f"{method} is not allowed here; {', '.join(allow)} is")
        return error_response(refusal, {"allow": ", ".join(allow)})
    if error.status_code == 404:
        return error_response(NotFound(f"there is no {shorten(request.scope['path'])}"))
    return error_response(internal_error())


async def on_exception(_: Request, __: Exception) -> Response:
    """The exception itself goes on to the gate, which logs it once."""
    return error_response(internal_error())


def install(app: FastAPI) -> None:
    app.add_exception_handler(ServeError, on_serve_error)
    app.add_exception_handler(RequestValidationError, on_validation_error)
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(Exception, on_exception)
