from __future__ import annotations

import pytest

from tests.end_to_end.running import TIEDLM, Server


@pytest.fixture(scope="session")
def server():
    """The scripted model with every flag at its default but those that would make a test slow."""
    with Server("--read-timeout", "1", "--max-body-bytes", "1MiB", "--max-queue", "64") as running:
        yield running.ready()


@pytest.fixture(scope="session")
def smollm():
    """The default checkpoint, pulled where it is not in the cache yet."""
    with Server(command=[*TIEDLM, "serve"]) as running:
        yield running.ready(patience=300)
