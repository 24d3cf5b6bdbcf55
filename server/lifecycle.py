"""
The process: listen at once, load meanwhile, serve, drain, end.

The socket stays open while draining, so that a client is told `shutting_down` and does not find a
closed port.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator

import uvicorn

from server.api.service import ServedModel, Service
from server.app import build_routes, guard
from server.http import MAX_LINGERING, Limits, protocol_with

log = logging.getLogger("server")

BACKLOG = 2048
OTHER_FILES = 256  # the model's, the logs', the child processes' pipes
GRACE = 5  # seconds for answers to be written once the engine has stopped
GC_THRESHOLDS = (20_000, 20, 100)  # large answers make objects, not cycles: look seldom

Load = Callable[[], ServedModel]


class CannotListen(Exception):
    """One readable line."""


class CannotLoad(Exception):
    """One readable line."""


def listen(host: str, port: int) -> socket.socket:
    try:
        [(family, kind, protocol, _, address), *_] = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise CannotListen(f"cannot listen on {host}:{port}: {reason.lower()}") from None
    return listener


def allow_files(max_connections: int) -> None:
    """Raises this process's own limit on open files to what so many connections may need."""
    needed = max_connections + MAX_LINGERING + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise CannotListen(
            f"--max-connections {max_connections} may need {needed} open files; the system allows "
            f"this process {hard}"
        )
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


class QuietServer(uvicorn.Server):
    """uvicorn without its signal handlers: `Lifecycle` has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Lifecycle:
    def __init__(self, service: Service, load: Load) -> None:
        self.service, self.load = service, load
        self.routes = build_routes(service)
        self.exit_code = 0
        self.tasks: set[asyncio.Task[None]] = set()

    async def run(self, listener: socket.socket) -> int:
        """Until told to stop; the process's exit code."""
        self.server = QuietServer(self._config())
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        address = "{}:{}".format(*listener.getsockname()[:2])
        log.info("listening on http://%s", address)
        self._spawn(self._load(address))
        await self.server.serve(sockets=[listener])
        return self.exit_code

    def _config(self) -> uvicorn.Config:
        settings = self.service.settings
        limits = Limits(
            max_header_bytes=settings.max_header_bytes,
            max_body_bytes=settings.max_body_bytes,
            max_connections=settings.max_connections,
            read_timeout=settings.read_timeout,
            count=self.service.metrics.http_answered,
        )
        return uvicorn.Config(
            guard(self.routes, self.service),
            http=protocol_with(limits),
            loop="asyncio",
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=settings.keep_alive_timeout,
            timeout_graceful_shutdown=GRACE,
        )

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def _prepare(self) -> ServedModel:
        model = self.load()
        # What is loaded stays: the collector need not look at it again, with the interpreter held.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        gc.enable()  # cli.py has it wait until here
        return model

    async def _load(self, address: str) -> None:
        try:
            model = await in_daemon_thread(self._prepare)
        except CannotLoad as error:
            print(f"tiedlm: {error}", file=sys.stderr)  # noqa: T201
            self.exit_code, self.server.should_exit = 1, True
            return
        except Exception as error:
            # A bug, or parts that do not fit together: or it would stay unready for ever.
            log.exception("the model could not be loaded")
            print(f"tiedlm: the model could not be loaded: {error!r}", file=sys.stderr)  # noqa: T201
            self.exit_code, self.server.should_exit = 1, True
            return
        if self.service.is_draining:
            return
        model.engine.start()
        self.service.model = model
        log.info("ready: %s on http://%s", model.name, address)

    def _on_signal(self) -> None:
        if self.service.is_draining:
            os._exit(self.exit_code)  # the second one: at once, whatever runs
        log.info("draining, for %g s at most", self.service.settings.drain_timeout)
        self.service.begin_drain()
        self._spawn(self._drain())

    async def _drain(self) -> None:
        model = self.service.model
        if model is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.service.settings.drain_timeout):
                    await model.engine.drained()
            # What is left ends with an error event; joining takes the step that runs now.
            await asyncio.to_thread(model.engine.stop)
        self.server.should_exit = True


async def in_daemon_thread(work: Load) -> ServedModel:
    """Unlike an executor's, this thread does not keep a process alive that was told to end."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[ServedModel] = loop.create_future()

    def run() -> None:
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001  it is raised where it is awaited
            loop.call_soon_threadsafe(done.set_exception, error)
        else:
            loop.call_soon_threadsafe(done.set_result, result)

    threading.Thread(target=run, name="load", daemon=True).start()
    return await done
