"""The image with another model than its own: mounted at /models and named by TIEDLM_MODEL."""

import json
import shutil

import pytest

from tests.image.container import Container
from tests.weights.tiny import tiny_hf
from weights.catalog import resolve
from weights.load import load

pytestmark = pytest.mark.image


@pytest.fixture
def models(tmp_path):
    """Readable by all: the container's user is another than this one."""
    tmp_path.chmod(0o755)
    return tmp_path


def readable(folder):
    """transformers lets the owner alone read what it saves."""
    for path in folder.iterdir():
        path.chmod(0o644)
    return folder


def ask(container):
    asked = {"prompt": "The capital", "max_tokens": 4, "temperature": 0, "ignore_eos": True}
    answer = json.loads(container.ask("/generate", asked))
    assert answer["usage"]["completion_tokens"] == 4
    return answer


def test_a_model_folder_that_is_mounted_is_served(models):
    digest = load(readable(tiny_hf(models / "tiny"))).sha256
    with Container(models, TIEDLM_MODEL="/models/tiny") as container:
        answer = ask(container)
        assert answer["model"] == "tiny"
        assert answer["computed"]["model_sha256"] == digest


def test_the_mounted_folder_itself_may_be_the_model(models):
    digest = load(readable(tiny_hf(models))).sha256
    with Container(models, TIEDLM_MODEL="/models", TIEDLM_MODEL_NAME="mine") as container:
        answer = ask(container)
        assert answer["model"] == "mine"
        assert answer["computed"]["model_sha256"] == digest


def test_a_model_of_the_catalogue_is_served_from_a_mounted_cache(models):
    """As `tiedlm pull` has left it there: nothing is fetched, nothing is written."""
    pulled = resolve("gemma-3-270m")
    shutil.copy(pulled, models)
    with Container(models, TIEDLM_MODEL="gemma-3-270m") as container:
        answer = ask(container)
        assert answer["model"] == "gemma-3-270m"
        assert answer["computed"]["model_sha256"] == load(pulled).sha256
