"""The scripted server on a machine whose clock of the day is set anew, far off, again and again."""

from __future__ import annotations

import itertools
import sys
import time

from tests.end_to_end.scripted_server import main

HOUR = 3600.0
JUMPS = itertools.cycle((0.0, 30 * 24 * HOUR, -2 * HOUR, 1e-3, -30 * 24 * HOUR))


def jumping() -> float:
    return START + next(JUMPS)


START = time.time()

if __name__ == "__main__":
    time.time = jumping
    sys.exit(main())
