"""`tiedlm quantize`, and a server on what it wrote: the answers of the source at that precision."""

import subprocess
import threading

import pytest

from tests.end_to_end.running import ROOT, TIEDLM, Server

PROMPT = "The capital of France is"
FLAGS = ("--kv-cache-tokens", "4096", "--max-context", "1024")
CASES = [("smollm2-135m-instruct", "int8"), ("gemma-3-270m", "int4")]


def run(*arguments):
    return subprocess.run([*TIEDLM, *arguments], cwd=ROOT, capture_output=True, text=True)


def serve(model, precision):
    return Server(*FLAGS, "--precision", precision, command=[*TIEDLM, "serve", str(model)])


def answers(server):
    generated = server.generate(PROMPT, max_tokens=12, temperature=0, logprobs=5)
    body = {"prompt": PROMPT, "full": "base64", "top_k": 5}
    told = server.post("/next-token-probabilities", body).json()["results"]
    return generated["choices"][0]["tokens"], told, generated["computed"]["precision"]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: "-".join(case))
def written(request, tmp_path_factory):
    name, precision = request.param
    target = tmp_path_factory.mktemp("quantised") / "model"
    done = run("quantize", name, str(target), "--precision", precision)
    assert (done.returncode, done.stdout) == (0, f"{target}\n"), done.stderr
    assert "100%" in done.stderr
    return name, precision, target


@pytest.fixture(scope="module")
def served(written):
    with serve(written[2], "auto") as running:
        yield running.ready(patience=600)


def test_the_folder_answers_with_the_floats_of_its_source_at_that_precision(written, served):
    name, precision, _ = written
    with serve(name, precision) as source:
        expected = answers(source.ready(patience=600))
    assert answers(served) == expected
    assert expected[2] == precision


def test_a_crowd_gets_the_floats_of_one(served):
    alone = answers(served)[0]
    crowd: list[object] = []
    threads = [threading.Thread(target=lambda: crowd.append(answers(served)[0])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert crowd == [alone] * 8


def test_the_server_holds_little_beside_the_file(written, served):
    """No second copy: all parameters are as large as the file, and so is the tied matrix."""
    props = served.http.get("/props").json()
    size = (written[2] / "model.safetensors").stat().st_size
    assert 0.99 * size < props["parameter_bytes"] <= size
    assert props["precision"] == written[1]


def test_inspect_tells_what_was_written(written):
    done = run("inspect", str(written[2]))
    assert done.returncode == 0
    assert f"{written[1]}, by tiedlm quantize" in done.stdout
    assert "Q8_0 x" in done.stdout


def test_quantize_overwrites_nothing(written):
    before = sorted(path.name for path in written[2].iterdir())
    done = run("quantize", written[0], str(written[2]), "--precision", "int8")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"tiedlm: {written[2]} exists and is not empty; nothing is overwritten.\n"
    assert sorted(path.name for path in written[2].iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("smollm2-135m-instruct", "new"), 2),
        (("smollm2-135m-instruct", "new", "--precision", "float32"), 2),
        (("no-such-model", "new", "--precision", "int8"), 1),
        (("smollm2-135m-instruct", "/dev/null/new", "--precision", "int8"), 1),
    ],
)
def test_what_cannot_be_written_is_one_readable_line(arguments, code, tmp_path):
    source, target, *flags = arguments
    done = run("quantize", source, str(tmp_path / target), *flags)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1)
    assert done.stderr.startswith("tiedlm: ")
    assert list(tmp_path.iterdir()) == []
