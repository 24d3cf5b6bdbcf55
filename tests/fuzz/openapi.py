"""
schemathesis against a running server's own OpenAPI document: each operation with what it allows and
what it does not, and sequences of operations along the document's links.

`python -m tests.fuzz.openapi --minutes 5` serves the default checkpoint and lets it loose on that.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.process import Server

# A schema cannot say how large the vocabulary is, that two fields exclude each other, or that an
# upload must not be too long: what it allows may rightly be refused, and is then checked for form.
NOT_CHECKED = "positive_data_acceptance"
# So that a connection that is closed without an answer is a fault, and never one that idled.
NEVER_IDLE = ("--keep-alive-timeout", "86400")


def command(url: str, *flags: str) -> list[str]:
    return [
        *(str(Path(sys.executable).parent / "schemathesis"), "run", f"{url}/openapi.json"),
        *("--exclude-checks", NOT_CHECKED, "--request-timeout", "120"),
        *("--no-color", "--warnings", "off", *flags),
    ]


def environment() -> dict[str, str]:
    return os.environ | {"SCHEMATHESIS_HOOKS": "tests.fuzz.answer_checks"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    seconds = str(max(1, int(60 * parser.parse_args().minutes)))
    flags = ("--phases", "examples,coverage,fuzzing,stateful", "--mode", "all", "--max-time")
    limits = ("--kv-cache-tokens", "16384", "--max-context", "512", *NEVER_IDLE)
    with Server(*limits) as server:
        return subprocess.run(command(server.url, *flags, seconds), env=environment()).returncode


if __name__ == "__main__":
    sys.exit(main())
