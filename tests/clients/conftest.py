from __future__ import annotations

import pytest

from tests.end_to_end.running import Server


@pytest.fixture(scope="session")
def server():
    """The scripted model behind a key."""
    with Server("--api-key", "secret", "--max-queue", "64") as running:
        yield running.ready()
