"""
`tiedlm serve` around a model that costs a fixed time a step and no arithmetic: what is left to
measure is the server itself.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace

from model.step import Drawn, Row, Sampled
from server.api.service import ServedModel
from server.cli import run_server
from server.engine.engine import Engine
from server.flags import build_parser, read_settings
from server.metrics import Metrics
from server.settings import Settings
from tests.scripted import scripted_model

STEP_SECONDS = 0.001  # asleep, as a thread is whose kernels hold no interpreter lock
CONTEXT = 4096
LETTER = Sampled((Drawn(ord("a")),))


class TimedSteps:
    """A Runner that draws one letter for ever."""

    num_pages, page_size = 8192, 16

    def step(self, rows: Sequence[Row]) -> list[Sampled]:
        time.sleep(STEP_SECONDS)
        return [Sampled() if row.sampling is None else LETTER for row in rows]


def timed_engine(max_batch: int = 32, metrics: Metrics | None = None) -> Engine:
    return Engine(
        TimedSteps(), max_batch=max_batch, max_batch_tokens=512, max_queue=256, metrics=metrics
    )


def load(settings: Settings, metrics: Metrics) -> ServedModel:
    model = scripted_model(settings, Metrics())
    engine = timed_engine(settings.max_batch, metrics)
    return replace(model, engine=engine, context_length=CONTEXT)


def main() -> int:
    given = vars(build_parser().parse_args(["serve", *sys.argv[1:]]))
    return run_server(read_settings({k: v for k, v in given.items() if k != "command"}), load)


if __name__ == "__main__":
    sys.exit(main())
