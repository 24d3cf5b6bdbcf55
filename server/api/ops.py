"""
For whoever runs the server: is it alive, is it ready, what does it serve, within which limits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import version
from importlib.resources import files

from fastapi import APIRouter, Request
from fastapi.responses import Response

from server.api.body import MAX_DEPTH
from server.api.encode import dumps
from server.api.responses import MODEL_ERRORS, PLAIN_ERRORS, errors
from server.api.schemas import answers, fields
from server.api.service import CurrentModel, CurrentService

router = APIRouter(redirect_slashes=False)

NAME = "tiedlm"
VERSION = version(NAME)
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
# The page runs its own script and talks to its own server: nothing else may be loaded by it.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
FIXED_LIMITS: Mapping[str, int] = {  # those of the API that no flag changes
    "max_stops": fields.MAX_STOPS,
    "max_stop_bytes": fields.MAX_STOP_BYTES,
    "max_logit_biases": fields.MAX_LOGIT_BIASES,
    "max_continuations": fields.MAX_CONTINUATIONS,
    "max_json_depth": MAX_DEPTH,
}
MEDIA_TYPES: Mapping[str, str] = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "png": "image/png",
}
PAGES: Mapping[str, str] = {  # path -> file of static/
    "/": "playground.html",
    "/playground.js": "playground.js",
    "/playground.css": "playground.css",
    "/favicon.ico": "favicon.png",
    "/docs": "docs.html",
    "/docs.js": "docs.js",
    "/docs.css": "docs.css",
}


def json_response(value: object, status: int = 200) -> Response:
    return Response(dumps(value), status, media_type="application/json")


@router.get("/health", responses={200: {"model": answers.Status}, **PLAIN_ERRORS})
async def health() -> Response:
    """200 while the process lives."""
    return json_response({"status": "ok"})


@router.get("/ready", responses={200: {"model": answers.Status}, **PLAIN_ERRORS, **errors(503)})
async def ready(service: CurrentService) -> Response:
    """200 when requests are taken; 503 while loading and while shutting down."""
    service.require_model()
    return json_response({"status": "ready"})


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}}, **PLAIN_ERRORS},
)
async def metrics(service: CurrentService) -> Response:
    """Prometheus text."""
    return Response(service.metrics.render(), media_type=PROMETHEUS)


@router.get("/version", responses={200: {"model": answers.Version}, **PLAIN_ERRORS})
async def show_version() -> Response:
    return json_response({"name": NAME, "version": VERSION})


@router.get("/props", responses={200: {"model": answers.Props}, **MODEL_ERRORS})
async def props(service: CurrentService, model: CurrentModel) -> Response:
    """The model that is served and every limit of this API, by its flag's name."""
    tie = {
        "tied": True,
        "embedding_bytes": model.embedding_bytes,
        "shares_storage": model.shares_storage,
    }
    return json_response(
        {
            "model": model.name,
            "family": model.family,
            "parameters": model.num_parameters,
            "parameter_bytes": model.parameter_bytes,
            "vocab_size": model.vocab_size,
            "context_length": model.context_length,
            "precision": model.precision,
            "kernels": model.kernels,
            "model_sha256": model.sha256,
            "tie": tie,
            "limits": {**service.limits(model), **FIXED_LIMITS},
        }
    )


@router.get("/openapi.json", include_in_schema=False)
async def openapi(request: Request) -> Response:
    # Made when first asked for, and kept: a third of a second, for which nobody else is to wait.
    return json_response(await asyncio.to_thread(request.app.openapi))


def page(name: str) -> Callable[[], Awaitable[Response]]:
    async def show() -> Response:
        body = (files("server.api") / "static" / name).read_bytes()
        media_type = MEDIA_TYPES[name.rpartition(".")[2]]
        return Response(body, 200, {"content-security-policy": PAGE_POLICY}, media_type)

    return show


for path, name in PAGES.items():
    router.add_api_route(path, page(name), include_in_schema=False)
