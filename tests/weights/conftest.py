"""The real checkpoints, as `tiedlm pull` leaves them: no test downloads anything."""

import pytest

from weights.catalog import cache_folder
from weights.load import load


def cached(name):
    path = cache_folder() / f"{name}.gguf"
    if not path.is_file():
        pytest.fail(f"{path} is missing: run `tiedlm pull {name}` first, or `make test`.")
    return path


@pytest.fixture(scope="session")
def smollm_path():
    return cached("smollm2-135m-instruct")


@pytest.fixture(scope="session")
def gemma_path():
    return cached("gemma-3-270m")


@pytest.fixture(scope="session")
def smollm(smollm_path):
    return load(smollm_path)


@pytest.fixture(scope="session")
def gemma(gemma_path):
    return load(gemma_path)
