"""The ASGI application: routes, the one error shape, and what stands before every route."""

from __future__ import annotations

from threading import Lock
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp

from server.api import faults, native, openai, ops
from server.api.body import BodyRoutes
from server.api.gate import Cors, Gate, HeadAsGet, HostCheck, KeyCheck
from server.api.leave import LeaveWatch
from server.api.service import Service


class Routes(FastAPI):
    """Its OpenAPI document tells what is answered: validation never gives FastAPI's own 422."""

    documenting = Lock()  # threads ask for it: none may see it half made

    def openapi(self) -> dict[str, Any]:
        with self.documenting:
            if self.openapi_schema is None:
                document = super().openapi()
                for path in document["paths"].values():
                    for operation in path.values():
                        operation["responses"].pop("422", None)
                for name in ("HTTPValidationError", "ValidationError"):
                    document["components"]["schemas"].pop(name, None)
            return super().openapi()


def build_routes(service: Service) -> Routes:
    routes = Routes(
        title=ops.NAME,
        version=ops.VERSION,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    routes.state.service = service
    routes.include_router(native.router)
    routes.include_router(openai.router)
    routes.include_router(ops.router)
    faults.install(routes)
    return routes


def guard(routes: ASGIApp, service: Service) -> ASGIApp:
    settings = service.settings
    app: ASGIApp = BodyRoutes(routes, service, [*native.router.routes, *openai.router.routes])
    app = HeadAsGet(LeaveWatch(app))
    app = KeyCheck(app, settings.api_key)
    app = HostCheck(app, settings.allowed_host)
    app = Cors(app, settings.cors_origin)
    return Gate(app, service.metrics.http_answered)
