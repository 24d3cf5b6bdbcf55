"""
The composition root: flags -> Settings -> Checkpoint -> Runner -> Engine -> app -> the socket.
"""

# Commands import what they need when they are chosen: torch takes a second, and the port is to
# answer before that, `--help` and a wrong flag at once.

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from server.flags import UsageError, build_parser, read_settings, warn_of_unknown_variables

if TYPE_CHECKING:
    from server.api.service import ServedModel
    from server.metrics import Metrics
    from server.settings import Settings

# How often a thread of torch's OpenMP (libgomp) looks before it sleeps at a barrier: some tens of
# microseconds. By default it spins for milliseconds, and with a busy neighbour on the machine a
# step can take fifty times as long (docs/log.md).
SPIN_COUNT = "20000"
LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def main(argv: Sequence[str] | None = None) -> int:
    """0: done. 1: it could not be done. 2: it was asked for in a way that means nothing."""
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)  # read when torch is imported
    try:
        arguments = build_parser().parse_args(argv)
        return COMMANDS[arguments.command](arguments)
    except UsageError as error:
        return fail(str(error), 2)
    except KeyboardInterrupt:
        return 130


def fail(message: str, code: int = 1) -> int:
    print(f"tiedlm: {' '.join(message.split())}", file=sys.stderr)
    return code


def serve(arguments: argparse.Namespace) -> int:
    # As a container's first process it would not even be stopped by a signal it does not handle.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop_before_the_start)
    given = {name: value for name, value in vars(arguments).items() if name != "command"}
    settings = read_settings(given)
    warn_of_unknown_variables()
    return run_server(settings, load_model)


def stop_before_the_start(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    """Nothing listens yet, so nothing is to be ended; `Lifecycle` puts its own in place of it."""
    os._exit(0)


def load_model(settings: Settings, metrics: Metrics) -> ServedModel:
    from server.loading import load_model as load

    return load(settings, metrics)


def run_server(settings: Settings, load: Callable[[Settings, Metrics], ServedModel]) -> int:
    """Until it is told to end; `load` runs in a thread of its own once the port is open."""
    set_up_logging(settings.log_level)
    # Imports and loading make objects that stay. Collecting among them time and again is an eighth
    # of the way to the first answer; lifecycle.py collects once, when all of them are there.
    gc.disable()
    from server.api.service import Service
    from server.lifecycle import CannotListen, Lifecycle, allow_files, listen
    from server.metrics import Metrics

    try:
        allow_files(settings.max_connections)
        listener = listen(settings.host, settings.port)
    except CannotListen as error:
        return fail(str(error))
    service = Service(settings, Metrics())
    lifecycle = Lifecycle(service, lambda: load(settings, service.metrics))
    return finish(asyncio.run(lifecycle.run(listener)))


def set_up_logging(level: str) -> None:
    logging.basicConfig(level=level.upper(), format=LOG_FORMAT, stream=sys.stdout, force=True)
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    logging.getLogger("asyncio").setLevel(logging.ERROR)


def finish(code: int) -> int:
    """A model still being loaded when told to end is not waited for, nor torn down half made."""
    if any(thread.name == "load" for thread in threading.enumerate()):
        sys.stdout.flush()
        os._exit(code)
    return code


def pull(arguments: argparse.Namespace) -> int:
    from weights.catalog import resolve
    from weights.checkpoint import CheckpointError

    try:
        print(resolve(arguments.name))
    except CheckpointError as error:
        return fail(str(error))
    return 0


def inspect(arguments: argparse.Namespace) -> int:
    from weights.catalog import resolve
    from weights.checkpoint import CheckpointError
    from weights.inspect import inspect_lines

    try:
        print("\n".join(inspect_lines(resolve(arguments.path))))
    except CheckpointError as error:
        return fail(str(error))
    return 0


def generate(arguments: argparse.Namespace) -> int:
    from server.loading import continue_prompt
    from weights.checkpoint import CheckpointError

    try:
        for text in continue_prompt(arguments.model, arguments.prompt, arguments.max_tokens):
            print(text, end="", flush=True)
    except (CheckpointError, ValueError) as error:
        return fail(str(error))
    print()
    return 0


def quantize(arguments: argparse.Namespace) -> int:
    from server.loading import quantize_named
    from weights.checkpoint import CheckpointError

    target = Path(arguments.target)
    try:
        quantize_named(arguments.source, target, arguments.precision)
    except CheckpointError as error:
        return fail(str(error))
    print(target)
    return 0


COMMANDS: Mapping[str, Callable[[argparse.Namespace], int]] = {
    "serve": serve,
    "pull": pull,
    "inspect": inspect,
    "generate": generate,
    "quantize": quantize,
}
