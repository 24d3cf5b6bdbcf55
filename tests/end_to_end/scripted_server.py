"""`tiedlm serve` with the scripted model: the real process, socket and engine around it."""

from __future__ import annotations

import sys
import time

from server.cli import fail, run_server
from server.flags import UsageError, build_parser, read_settings
from server.settings import Settings
from tests.scripted import scripted_model

SLOW_TO_LOAD = (
    "slow-to-load"  # a MODEL that takes so long that a test can look at the server meanwhile
)
BROKEN = "broken"
BUGGED = "bugged"


def load(settings, metrics):
    if settings.model == SLOW_TO_LOAD:
        time.sleep(3600)
    if settings.model == BROKEN:
        from server.lifecycle import CannotLoad

        raise CannotLoad("broken.gguf: the file ends after 12 bytes")
    if settings.model == BUGGED:
        raise AttributeError("no such kernel")
    return scripted_model(settings, metrics)


def main() -> int:
    try:
        given = vars(build_parser().parse_args(["serve", *sys.argv[1:]]))
        settings: Settings = read_settings({k: v for k, v in given.items() if k != "command"})
    except UsageError as error:
        return fail(str(error), 2)
    return run_server(settings, load)


if __name__ == "__main__":
    sys.exit(main())
