"""
The image as it is run for real: `make image-test` builds it, and says by what engine it is run.

Nothing reaches into the container: there is no network, so that the client runs inside it too.
"""

import json
import re
import subprocess
from datetime import datetime

import pytest

from tests.image.container import ENGINE, IMAGE, Container, engine, inspect
from weights.catalog import CATALOG

pytestmark = pytest.mark.image

PARIS = {"prompt": "The capital of France is", "max_tokens": 8, "temperature": 0}
MODEL = CATALOG["smollm2-135m-instruct"]
MAX_BYTES = 1_200_000_000  # without the model


STREAM = """
import http.client, sys
connection = http.client.HTTPConnection("127.0.0.1", 8000, timeout=120)
connection.request("POST", "/generate", sys.argv[1], {"Content-Type": "application/json"})
for line in connection.getresponse():
    print(line.decode().strip(), flush=True)
"""


@pytest.fixture(scope="module")
def container():
    started = Container(TIEDLM_MAX_BATCH="7", TIEDLM_DRAIN_TIMEOUT="60")
    yield started
    started.remove()


@pytest.fixture(scope="module")
def image():
    return inspect("image", IMAGE)


def test_it_generates(container):
    answer = json.loads(container.ask("/generate", PARIS))
    [choice] = answer["choices"]
    assert choice["text"].startswith(" Paris")
    assert choice["finish_reason"] == "length"


def test_it_streams_the_same(container):
    whole = json.loads(container.ask("/generate", PARIS))
    lines = container.ask("/generate", PARIS | {"stream": True}).split("\n\n")
    *events, last, done, nothing = lines
    assert (done, nothing) == ("data: [DONE]", "")
    told = [json.loads(event.removeprefix("data: ")) for event in events]
    text = "".join(event["choices"][0]["text"] for event in told)
    assert text == whole["choices"][0]["text"]
    assert json.loads(last.removeprefix("data: "))["usage"]["completion_tokens"] == 8


def test_it_tells_probabilities_by_the_same_floats(container):
    asked = {"prompt": PARIS["prompt"], "top_k": 3}
    [result] = json.loads(container.ask("/next-token-probabilities", asked))["results"]
    generated = json.loads(container.ask("/generate", PARIS | {"max_tokens": 1, "logprobs": 3}))
    [token] = generated["choices"][0]["tokens"]
    assert result["top"][0]["text"] == " Paris"
    assert [top["logprob"] for top in result["top"]] == [top["logprob"] for top in token["top"]]


def test_it_talks_constrained_and_by_template(container):
    """Grammars and templates run in child processes, which need neither network nor a folder."""
    messages = [{"role": "user", "content": "Say yes or no."}]
    body = {"messages": messages, "max_tokens": 4, "temperature": 0, "seed": 1}
    schema = {"name": "answer", "schema": {"enum": ["yes", "no"]}}
    form = {"type": "json_schema", "json_schema": schema}
    answer = json.loads(container.ask("/v1/chat/completions", body | {"response_format": form}))
    assert json.loads(answer["choices"][0]["message"]["content"]) in ("yes", "no")


def test_its_kernels_were_compiled_and_no_compiler_is_left(container):
    assert json.loads(container.ask("/props"))["kernels"] != "torch"
    for name in ("gcc", "g++", "cc", "c++", "clang", "ld", "as", "make"):
        found = container.execute("sh", "-c", f"command -v {name}")
        assert found.returncode != 0, found.stdout


def test_a_flag_is_a_variable_and_the_cache_is_sized_by_the_containers_memory(container):
    limits = json.loads(container.ask("/props"))["limits"]
    assert limits["max_batch"] == 7
    assert limits["drain_timeout"] == 60
    assert 2**27 < limits["kv_cache_memory"] <= 2**31 / 4


def test_it_runs_as_nobody_in_particular_and_can_write_nowhere(container):
    assert container.execute("id", "-u").stdout.strip() == "10001"
    assert container.status("Uid") == "10001"
    assert int(container.status("CapEff"), 16) == 0
    for folder in ("/", "/models", "/opt/venv"):
        assert container.execute("touch", f"{folder}/file").returncode != 0


def test_the_first_process_is_the_server(container):
    words = container.execute("cat", "/proc/1/cmdline").stdout.split("\0")
    assert words[1:3] == ["/opt/venv/bin/tiedlm", "serve"]


def test_its_own_health_check_passes(container, image):
    config = image.get("HealthCheck") or image.get("Healthcheck") or image["Config"]["Healthcheck"]
    kind, *command = config["Test"]
    assert kind == "CMD"
    assert container.execute(*command).returncode == 0
    wrong_port = engine("exec", "--env=TIEDLM_PORT=1", container.name, *command)
    assert wrong_port.returncode != 0


def test_its_log_is_on_standard_output(container):
    logs = engine("logs", container.name)
    assert "ready: smollm2-135m-instruct on http://0.0.0.0:8000" in logs.stdout
    assert "ready:" not in logs.stderr


def test_the_image_says_what_it_is(image):
    config = image["Config"]
    assert config["User"] == "10001:10001"
    assert list(config["ExposedPorts"]) == ["8000/tcp"]
    labels = {name.rpartition(".")[2] for name in config["Labels"]}
    assert {"title", "description", "licenses", "version", "revision"} <= labels
    assert "TIEDLM_HOST=0.0.0.0" in config["Env"]


def test_the_image_is_small(image):
    assert image["Size"] - MODEL.num_bytes < MAX_BYTES


def test_what_it_takes_is_told(container, image, capsys):
    logs = engine("logs", container.name).stdout
    ready = re.search(r"^(\S+ \S+),(\d+) INFO server: ready", logs, re.MULTILINE)
    began = re.sub(r"\.(\d{6})\d*", r".\1", container.state()["StartedAt"])
    until = datetime.fromisoformat(f"{ready[1]}.{ready[2]}+00:00") - datetime.fromisoformat(began)
    told = {
        "image_mb": round(image["Size"] / 1e6),
        "image_without_model_mb": round((image["Size"] - MODEL.num_bytes) / 1e6),
        "start_to_ready_seconds": round(until.total_seconds(), 2),
        "run_to_ready_seen_seconds": round(container.ready_seconds, 2),
        "resident_mb_when_ready": round(container.resident_at_ready / 1e6),
        "resident_mb_after_these_tests": round(container.memory("VmRSS") / 1e6),
        "peak_resident_mb": round(container.memory("VmHWM") / 1e6),
    }
    with capsys.disabled():
        print("\n" + json.dumps(told))


def test_stopped_it_ends_what_runs_and_exits_with_nought(container):
    """The last of them: nothing can be asked after it."""
    body = {"prompt": "Once", "max_tokens": 200, "ignore_eos": True, "stream": True}
    command = [*ENGINE, "exec", container.name, "python", "-c", STREAM, json.dumps(body)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout.readline().startswith("data: ")
        stopped = engine("stop", "--time=90", container.name)
        *_, done, _ = client.stdout.read().split("\n\n")
    assert stopped.returncode == 0
    assert done.strip() == "data: [DONE]"
    assert container.state()["ExitCode"] == 0
