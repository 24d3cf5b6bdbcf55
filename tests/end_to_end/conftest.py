from __future__ import annotations

import pytest

from tests.end_to_end.running import TIEDLM, Server


@pytest.fixture(scope="session")
def server():
    """The scripted model with every flag at its default but those that would make a test slow."""
    with Server("--read-timeout", "1", "--max-body-bytes", "1MiB", "--max-queue", "64") as running:
        yield running.ready()


@pytest.fixture(scope="session", params=["smollm2-135m-instruct", "gemma-3-270m"])
def exact(request):
    """In float32 and with room for long texts: what is compared with transformers' numbers."""
    flags = ("--kv-cache-tokens", "6144", "--max-context", "6144", "--precision", "float32")
    with Server(*flags, command=[*TIEDLM, "serve", request.param]) as running:
        running.http.timeout = 300
        yield running.ready(patience=600)


@pytest.fixture(scope="session", params=["smollm2-135m-instruct", "gemma-3-270m"])
def real(request):
    """Each of the catalogue's checkpoints, pulled where it is not in the cache yet."""
    flags = ("--kv-cache-tokens", "4096", "--max-context", "1024")
    with Server(*flags, command=[*TIEDLM, "serve", request.param]) as running:
        yield running.ready(patience=600)
