"""The server against its own OpenAPI document, by a program that has read nothing else."""

import re
import subprocess

import pytest

from tests.end_to_end.running import ROOT, Server
from tests.fuzz.openapi import command, environment
from tests.scripted import TAME


@pytest.fixture(scope="module")
def tame():
    with Server(TAME) as server:
        yield server.ready()


def test_every_answer_is_one_that_the_document_declares(tame, tmp_path):
    """
    Statuses, content types and schemas as declared, no 5xx, nothing accepted that the schema
    refuses. Seeded, so that it fails for whoever broke it; `make fuzz` has new seeds and sequences.
    """
    flags = ("--seed", "1", "--phases", "coverage,fuzzing", "-n", "3")
    ended = subprocess.run(
        command(tame.url, *flags),
        cwd=tmp_path,
        env=environment() | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "✅ Coverage" in ended.stdout
    assert "✅ Fuzzing" in ended.stdout
    assert int(re.search(r"(\d+) generated", ended.stdout)[1]) > 500
