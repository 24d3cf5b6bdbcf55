"""
What stands before every route, as plain ASGI: request ids, the last resort for errors, CORS, Host,
keys.

Outermost first: `Gate` (id, log line, metrics, 500) > `Cors` > `HostCheck` > `KeyCheck` >
`HeadAsGet` > `LeaveWatch` > the routes. Each decides on the ASGI scope alone, never on a URL put
together from headers.
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
import re
import time
from collections.abc import Callable, Iterable, Sequence
from secrets import token_hex

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.api.faults import error_response, internal_error, shorten
from server.errors import HostNotAllowed, ServeError, Unauthorized

log = logging.getLogger("server.request")

REQUEST_ID = re.compile(rb"[\x20-\x7e]{1,128}")
OPEN_ROUTES = {("GET", "/health"), ("HEAD", "/health"), ("GET", "/ready"), ("HEAD", "/ready")}
CLIENT_LEFT = 499  # of the log and the metrics alone: nobody is there to be told


def header(scope: Scope, name: bytes) -> bytes | None:
    return next((value for key, value in scope["headers"] if key == name), None)


def choose_request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The client's own if it is printable ASCII of at most 128 characters, else a new one."""
    for key, value in headers:
        if key == b"x-request-id" and REQUEST_ID.fullmatch(value):
            return value.decode("ascii")
    return token_hex(16)


class Gate:
    """
    Gives a request its id, and makes sure that it ends in an answer, one log line and one count.
    """

    def __init__(self, app: ASGIApp, count: Callable[[str, int], None]) -> None:
        """`count` takes the route's template and the status."""
        self.app, self.count = app, count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        # A copy: the server below goes on reading `method` from its own.
        scope = {**scope, "state": {**scope.get("state", {})}}
        exchange = Exchange(scope, send)
        scope["state"]["request_id"] = exchange.request_id
        try:
            await self.app(scope, receive, exchange.send)
        except Exception:
            log.exception("internal error", extra={"request_id": exchange.request_id})
            if exchange.status is not None:
                raise ConnectionAbortedError(
                    "an answer that had begun cannot be finished"
                ) from None
            await error_response(internal_error())(scope, receive, exchange.send)
        finally:
            self.count(exchange.route, exchange.status or CLIENT_LEFT)
            exchange.log_line()


class Exchange:
    """One request and what became of it."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.scope, self._send = scope, send
        self.request_id = choose_request_id(scope["headers"])
        self.status: int | None = None
        self.started = time.monotonic()

    @property
    def route(self) -> str:
        """The template that matched, never what the client wrote."""
        return getattr(self.scope.get("route"), "path", "unmatched")

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            own = [
                (b"x-request-id", self.request_id.encode()),
                (b"x-content-type-options", b"nosniff"),
            ]
            message = {**message, "headers": [*message.get("headers", []), *own]}
        await self._send(message)

    def log_line(self) -> None:
        log.info(
            "%s %s %s %.1fms id=%s",
            shorten(self.scope["method"], 20),
            self.route,
            self.status or CLIENT_LEFT,
            1000 * (time.monotonic() - self.started),
            self.request_id,
        )


class Cors:
    """Headers for listed origins alone; `*` lists all. An origin that is not listed gets none."""

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        self.app, self.origins = app, {origin.encode() for origin in origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        origin = header(scope, b"origin")
        if origin is None or not self.origins & {origin, b"*"}:
            return await self.app(scope, receive, send)
        # Where `*` is listed, `*` is what is sent: a name is never sent back unless it is listed.
        named = origin if origin in self.origins else b"*"
        allowed = [(b"access-control-allow-origin", named), (b"vary", b"origin")]
        if scope["method"] == "OPTIONS" and header(scope, b"access-control-request-method"):
            return await self._preflight(allowed, send)

        async def send_allowed(message: Message) -> None:
            if message["type"] == "http.response.start":
                exposed = (b"access-control-expose-headers", b"x-request-id, retry-after")
                message = {**message, "headers": [*message["headers"], *allowed, exposed]}
            await send(message)

        return await self.app(scope, receive, send_allowed)

    async def _preflight(self, allowed: list[tuple[bytes, bytes]], send: Send) -> None:
        headers = [
            *allowed,
            (b"access-control-allow-methods", b"GET, HEAD, POST"),
            (
                b"access-control-allow-headers",
                b"authorization, content-type, x-api-key, x-request-id",
            ),
            (b"access-control-max-age", b"600"),
        ]
        await send({"type": "http.response.start", "status": 204, "headers": headers})
        await send({"type": "http.response.body", "body": b""})


class HostCheck:
    """
    Against DNS rebinding: a page of another site may make a browser call, but not choose this
    header.
    """

    def __init__(self, app: ASGIApp, allowed: Sequence[str]) -> None:
        self.app, self.allowed = app, {name.lower() for name in allowed}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        host = (header(scope, b"host") or b"").decode("latin-1")
        if self._is_allowed(host.lower(), scope["server"]):
            return await self.app(scope, receive, send)
        refusal = HostNotAllowed(
            f"Host {shorten(host)!r} is neither loopback, an address this server is bound to nor "
            "given with --allowed-host"
        )
        return await error_response(refusal)(scope, receive, send)

    def _is_allowed(self, host: str, bound: tuple[str, int | None] | None) -> bool:
        name = host_name(host)
        if name is None:
            return False
        if self.allowed & {"*", host, name} or name == "localhost":
            return True
        if bound is not None and name == bound[0]:
            return True
        try:
            return ipaddress.ip_address(name).is_loopback
        except ValueError:
            return False


def host_name(host: str) -> str | None:
    """`Host` without its port and brackets; None where it is not a host at all."""
    match = re.fullmatch(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+))(?::\d{1,5})?", host)
    return None if match is None else (match[1] or match[2]).removesuffix(".")


class KeyCheck:
    """Every route but GET /health and /ready needs a key, where there are any."""

    def __init__(self, app: ASGIApp, keys: Sequence[str]) -> None:
        self.app, self.keys = app, [key.encode() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self.keys or (scope["method"], scope["path"]) in OPEN_ROUTES:
            return await self.app(scope, receive, send)
        key = self._matching(presented_keys(scope))
        if key is None:
            refusal: ServeError = Unauthorized(
                "a valid API key is required, as `Authorization: Bearer KEY` or `X-Api-Key: KEY`"
            )
            return await error_response(refusal)(scope, receive, send)
        scope["state"]["api_key"] = key
        return await self.app(scope, receive, send)

    def _matching(self, presented: Sequence[bytes]) -> bytes | None:
        """Every key is compared with all that was sent, so that the time taken tells nothing."""
        found = None
        for key in self.keys:
            for candidate in presented:
                if hmac.compare_digest(key, candidate):
                    found = key
        return found


def presented_keys(scope: Scope) -> list[bytes]:
    presented = []
    for name, value in scope["headers"]:
        scheme, _, credential = value.partition(b" ")
        if name == b"authorization" and scheme.lower() == b"bearer":
            presented.append(credential.strip())
        elif name == b"x-api-key":
            presented.append(value.strip())
    return presented[:4]


class HeadAsGet:
    """HEAD is answered wherever GET is: the server below leaves the body out."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "HEAD":
            scope["method"] = "GET"
        await self.app(scope, receive, send)
