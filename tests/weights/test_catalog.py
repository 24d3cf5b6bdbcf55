import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.weights.tiny import tiny_hf
from weights.catalog import CATALOG, cache_folder, pull, resolve
from weights.checkpoint import CheckpointError
from weights.load import load


def test_every_entry_of_the_catalogue_is_whole():
    assert list(CATALOG) == ["smollm2-135m-instruct", "gemma-3-270m"]
    for name, entry in CATALOG.items():
        assert entry.name == name
        assert re.fullmatch("[0-9a-f]{64}", entry.sha256)
        assert entry.licence


@pytest.mark.parametrize("fixture", ["smollm_path", "gemma_path"])
def test_pulled_file_is_found_again_without_a_download(fixture, request, monkeypatch):
    path = request.getfixturevalue(fixture)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert resolve(path.stem) == path


def test_cache_folder_is_the_users_unless_named(monkeypatch, tmp_path):
    monkeypatch.setenv("TIEDLM_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("TIEDLM_CACHE")
    assert cache_folder().name == "tiedlm"


def test_path_that_is_there_is_itself(tmp_path):
    path = tmp_path / "a.gguf"
    path.touch()
    assert resolve(str(path)) == path
    assert resolve(str(tmp_path)) == tmp_path


@pytest.mark.parametrize("name", ["nothing", "dir/nothing.gguf", "../a/b", "a/b/c", "", "a b/c"])
def test_name_that_is_nothing_is_refused_with_the_catalogue(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"smollm2-135m-instruct, gemma-3-270m"):
        resolve(name)


def test_pull_of_a_name_not_in_the_catalogue_is_refused():
    with pytest.raises(CheckpointError, match="llama-9 is not in the catalogue"):
        pull("llama-9")


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's protocol as a snapshot needs, over one folder."""

    folder = None
    commit = "0123456789abcdef0123456789abcdef01234567"

    def names(self):
        return sorted(path.name for path in self.folder.iterdir())

    def do_GET(self):
        self.answer(has_body=True)

    def do_HEAD(self):
        self.answer(has_body=False)

    def answer(self, has_body):
        path = self.path.split("?")[0]
        if "/api/models/org/tiny" in path:
            body, extra = json.dumps(self.listing(path)).encode(), {}
        elif (name := path.rsplit("/", 1)[-1]) in self.names() and "/org/tiny/resolve/" in path:
            body = (self.folder / name).read_bytes()
            digest = hashlib.sha256(body).hexdigest()
            extra = {"X-Repo-Commit": self.commit, "ETag": f'"{digest}"'}
        else:
            body, extra = b'{"error": "Repository not found"}', {"X-Error-Code": "RepoNotFound"}
        self.send_response(404 if "X-Error-Code" in extra else 200)
        for key, value in {**extra, "Content-Length": len(body)}.items():
            self.send_header(key, value)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        if has_body:
            self.wfile.write(body)

    def listing(self, path):
        files = [
            {"type": "file", "path": name, "size": (self.folder / name).stat().st_size, "oid": name}
            for name in self.names()
        ]
        if "/tree/" in path:
            return files
        siblings = [{"rfilename": name} for name in self.names()]
        return {"id": "org/tiny", "sha": self.commit, "siblings": siblings, "private": False}

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(tmp_path):
    folder = tiny_hf(tmp_path / "hub")
    (folder / "evil.py").write_text("raise SystemExit")
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    handler = type("TinyHub", (Hub,), {"folder": folder})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def resolved_apart(name, cache, endpoint):
    """In a process of its own: huggingface-hub reads its settings at import."""
    code = "import sys; from weights.catalog import resolve; print(resolve(sys.argv[1]))"
    settings = {"HF_ENDPOINT": endpoint, "TIEDLM_CACHE": str(cache), "HF_HUB_DISABLE_XET": "1"}
    kept = {k: v for k, v in os.environ.items() if k.lower() not in PROXIES and k not in OFFLINE}
    return subprocess.run(
        [sys.executable, "-c", code, name],
        capture_output=True,
        text=True,
        check=False,
        env=kept | settings,
    )


PROXIES = {"http_proxy", "https_proxy", "all_proxy"}
OFFLINE = {"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"}


def test_hub_id_is_fetched_without_pickles_or_code(hub, tmp_path):
    done = resolved_apart("org/tiny", tmp_path / "cache", hub)
    assert done.returncode == 0, done.stderr
    folder = (tmp_path / "cache").joinpath(done.stdout.strip())
    names = {path.name for path in folder.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert not {"evil.py", "pytorch_model.bin"} & names
    assert load(folder, "org/tiny").name == "org/tiny"


@pytest.mark.parametrize("name", ["org/other", "org/tiny"])
def test_hub_that_has_it_not_or_is_not_there_is_one_readable_line(hub, tmp_path, name):
    endpoint = hub if name == "org/other" else "http://127.0.0.1:9"
    done = resolved_apart(name, tmp_path / "cache", endpoint)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("weights.checkpoint.CheckpointError:")
    assert f"{name} could not be fetched from the hub" in last
