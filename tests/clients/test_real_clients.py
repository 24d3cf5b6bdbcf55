"""
Each client of docs/clients.md, unmodified, in a virtual environment of its own, against the default
checkpoint. `make test-clients` installs them and runs this.
"""

import json
import os
import subprocess

import pytest

from tests.clients.hf_folder import write_folder
from tests.clients.table import ROOT, rows
from tests.end_to_end.running import TIEDLM, Server

pytestmark = pytest.mark.clients

MODEL = "smollm2-135m-instruct"
FLAGS = ("--precision", "float32", "--kv-cache-memory", "512M", "--max-context", "2048")
OWN_NAME = {"text-generation": ("--model-name", "tgi")}  # what that client calls every model
NEED_FOLDER = ("lm-eval", "guidellm")


@pytest.fixture(scope="module")
def served():
    with Server(*FLAGS, command=[*TIEDLM, "serve", MODEL]) as running:
        yield running.ready(patience=600)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(MODEL, tmp_path_factory.mktemp("checkpoint"))


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.client)
def test_all_that_its_row_lists_works(row, request):
    flags = OWN_NAME.get(row.client)
    if flags is None:
        return run(row, request.getfixturevalue("served").url, request)
    with Server(*FLAGS, *flags, command=[*TIEDLM, "serve", MODEL]) as own:
        return run(row, own.ready(patience=600).url, request)


def run(row, url, request):
    python = ROOT / ".clients" / row.client / "bin" / "python"
    assert python.exists(), f"{row.client} is not installed: make test-clients does it"
    more = {}
    if row.client in NEED_FOLDER:
        more["LM_EVAL_FOLDER"] = str(request.getfixturevalue("folder"))
    done = subprocess.run(
        [python, "tests/clients/programs/run.py", row.client, url],
        cwd=ROOT,
        env=os.environ | more,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert json.loads(done.stdout.splitlines()[-1]) == list(row.works)
