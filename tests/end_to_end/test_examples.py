"""The examples of docs/, run as they are written."""

import os
import re
import subprocess
import sys

import pytest

from tests.end_to_end.running import ROOT

EXAMPLES = ROOT / "docs" / "examples"


def run(server, name, *arguments):
    return subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py"), *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"TIEDLM_URL": server.url},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout


def test_next_tokens(real):
    told = run(real, "next_tokens")
    assert "' Paris'" in told
    assert len(told.splitlines()) == 12


def test_labels_with_calibration(real):
    told = run(real, "classify")
    chosen = re.findall(r"calibrated +(good|bad) +(\d\.\d\d)", told)
    assert len(chosen) == 6
    assert (chosen[0][0], chosen[5][0]) == ("good", "good")
    assert all(0.5 <= float(probability) <= 1 for _, probability in chosen)


def test_perplexity_of_a_file(real, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text((ROOT / "LICENSE").read_text()[:3000])
    told = run(real, "perplexity", text)
    [perplexity] = re.findall(r"perplexity +([\d.]+)", told)
    assert 1 < float(perplexity) < 100


def test_surprisal_of_a_garden_path_with_a_plot(real, tmp_path):
    picture = tmp_path / "plot.png"
    garden, plain = run(real, "garden_path", picture).splitlines()
    after, before = (float(re.search(r"fell:([\d.]+)", line)[1]) for line in (garden, plain))
    assert after > before  # the reader is surprised where the sentence turns
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("script", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_every_example_is_shown_in_the_page(script):
    assert f"examples/{script}" in (ROOT / "docs" / "probabilities.md").read_text()
