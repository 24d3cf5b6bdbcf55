"""
The one door for JSON that comes in: what kind of body, how large, how deep, and that it is what RFC
8259 calls JSON.

It refuses what Python's parser lets pass: NaN, Infinity, numbers beyond float64, keys said twice,
lone surrogates.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import re
from collections.abc import Awaitable, Callable, Iterable
from typing import get_type_hints

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from server.api.faults import error_response, from_validation, shorten
from server.api.service import Service
from server.errors import (
    BadRequest,
    BodyTooLarge,
    InvalidJson,
    ServeError,
    UnsupportedMediaType,
)

MAX_DEPTH = 64
MAX_DIGITS = 40  # of one number's text; a 64-bit integer has 19, a float64 17
BYTES_A_VALUE = 16  # a body may hold one value, container or key for so many of its allowed bytes
SMALL = 32768  # bytes that are parsed at once, without a worker thread

# A whole string, which counts as one, or one mark of structure.
STRUCTURE = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{},:]', re.DOTALL)
SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")
SURROGATE = re.compile("[\ud800-\udfff]")


class JsonRoute(APIRoute):
    """A route that is refused while there is no model."""

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        handle = super().get_route_handler()

        async def handle_ready(request: Request) -> Response:
            request.app.state.service.require_model()
            return await handle(request)

        return handle_ready


class BodyRoutes:
    """
    The routes with a JSON body, called by their exact path. What there is no model for is refused
    before its body is read.

    FastAPI writes their document, and answers whatever else is asked of their paths. Finding and
    calling them is done here, since the layers that it would go through cost a quarter of a
    millisecond.
    """

    def __init__(self, app: ASGIApp, service: Service, routes: Iterable[BaseRoute]) -> None:
        """`app` has all routes."""
        self.app = app
        self.known = {
            route.path: (route, bodied(route.endpoint, service))
            for route in routes
            if isinstance(route, JsonRoute) and route.body_field is not None
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = self.known.get(scope["path"]) if scope["method"] == "POST" else None
        if found is None:
            await self.app(scope, receive, send)
            return
        scope["route"], handle = found
        try:
            response = await handle(Request(scope, receive))
        except ServeError as error:
            response = error_response(error)
        await response(scope, receive, send)


def bodied(
    endpoint: Callable[..., Awaitable[Response]], service: Service
) -> Callable[[Request], Awaitable[Response]]:
    """`endpoint` takes a body, and of request, service and model what it names."""
    names = inspect.signature(endpoint).parameters.keys() - {"body"}
    schema: type[BaseModel] = get_type_hints(endpoint)["body"]
    limit = service.settings.max_body_bytes

    async def handle(request: Request) -> Response:
        known = {"request": request, "service": service, "model": service.require_model()}
        value = await parse(await read_body(request.scope, request.receive, limit), limit)
        try:
            body = schema.model_validate(value)
        except ValidationError as error:
            raise from_validation(error.errors()) from None
        return await endpoint(body=body, **{name: known[name] for name in names})

    return handle


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    headers = scope["headers"]
    check_length(headers, limit)
    check_media_type(headers)
    parts, size, is_more = [], 0, True
    while is_more:
        message = await receive()
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise BodyTooLarge(f"the body is larger than {limit} bytes, the most allowed")
        parts.append(part)
        is_more = message.get("more_body", False)
    return b"".join(parts)


def check_length(headers: Iterable[tuple[bytes, bytes]], limit: int) -> None:
    for name, value in headers:
        if name == b"content-length" and int(value) > limit:
            raise BodyTooLarge(f"the body is {int(value)} bytes; at most {limit} are allowed")


def check_media_type(headers: Iterable[tuple[bytes, bytes]]) -> None:
    types = []
    for name, value in headers:
        text = value.decode("latin-1").strip()
        if name == b"content-encoding" and text.lower() not in ("", "identity"):
            raise UnsupportedMediaType(
                f"Content-Encoding {shorten(text, 40)!r} is not supported: send the body as it is"
            )
        if name == b"content-type":
            types.append(text)
    if len(types) != 1 or not is_json(types[0]):
        sent = ", ".join(shorten(text, 80) for text in types) or "missing"
        raise UnsupportedMediaType(f"Content-Type must be application/json in UTF-8; it is {sent}")


def is_json(content_type: str) -> bool:
    kind, *parameters = (part.strip().lower() for part in content_type.split(";"))
    charsets = [p.partition("=")[2].strip('" ') for p in parameters if p.startswith("charset")]
    return kind == "application/json" and all(c in ("utf-8", "utf8") for c in charsets)


async def parse(raw: bytes, limit: int) -> object:
    max_values = limit // BYTES_A_VALUE
    if len(raw) <= SMALL:
        return parse_json(raw, max_values)
    return await asyncio.to_thread(parse_json, raw, max_values)


def parse_json(raw: bytes, max_values: int) -> object:
    """Any JSON value; InvalidJson for all that is not, or that is too deep or too many."""
    check_structure(raw, max_values)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidJson(f"the body is not UTF-8: byte {error.start} cannot follow") from None
    try:
        value = json.loads(
            text,
            object_pairs_hook=unique_keys,
            parse_int=parse_integer,
            parse_float=parse_number,
            parse_constant=refuse_constant,
        )
    except json.JSONDecodeError as error:
        raise InvalidJson(f"the body is not JSON: {error.msg} at character {error.pos}") from None
    if SURROGATE_ESCAPE.search(raw):
        refuse_surrogates(value)
    return value


def check_structure(raw: bytes, max_values: int) -> None:
    """Depth and number of values, by what stands outside strings: before anything is built."""
    depth = num_values = 0
    for found in STRUCTURE.finditer(raw):
        mark = found[0]
        if mark in b"]}":
            depth -= 1
            continue
        num_values += 1
        if mark in b"[{":
            depth += 1
        if depth > MAX_DEPTH:
            raise InvalidJson(f"the body is nested deeper than the {MAX_DEPTH} that are allowed")
        if num_values > max_values:
            raise InvalidJson(f"the body holds more than the {max_values} values that are allowed")


def unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise InvalidJson(f"the key {shorten(twice)!r} is given twice")
    return found


def parse_integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise InvalidJson(f"an integer has {len(text)} digits; at most {MAX_DIGITS} are allowed")
    return int(text)


def parse_number(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise InvalidJson(f"the number {shorten(text, 40)} is beyond what a float64 can hold")
    return number


def refuse_constant(name: str) -> None:
    raise InvalidJson(f"{name} is not JSON")


def refuse_surrogates(value: object) -> None:
    if isinstance(value, str) and SURROGATE.search(value):
        raise BadRequest("a string holds a lone surrogate, which is no character")
    if isinstance(value, list):
        for item in value:
            refuse_surrogates(item)
    if isinstance(value, dict):
        for key, item in value.items():
            refuse_surrogates(key)
            refuse_surrogates(item)
