"""A server process under test, and the ways of talking to it that no HTTP client has."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[2]
SCRIPTED = [sys.executable, "-m", "tests.end_to_end.scripted_server"]
TIEDLM = [sys.executable, "-m", "server"]
PATIENCE = 30  # seconds that anything may take before a test gives up on it


class Server:
    """Its port, free unless given, is read from its log. Both of its outputs are kept in `log`."""

    def __init__(
        self, *flags: str, command: list[str] = SCRIPTED, port: int = 0, **env: str
    ) -> None:
        self.process = subprocess.Popen(
            [*command, *flags, "--port", str(port)],
            cwd=ROOT,
            env=clean_environment() | env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.log: list[str] = []
        self.lines = threading.Condition()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        self.port = int(self.wait_for(r"listening on http://[^ ]+:(\d+)")[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self.http = httpx.Client(base_url=self.url, timeout=PATIENCE)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self.lines:
                self.log.append(line)
                self.lines.notify_all()
        with self.lines:
            self.log.append("<end of the log>")
            self.lines.notify_all()

    def wait_for(self, pattern: str, patience: float = PATIENCE) -> re.Match[str]:
        """The first log line that matches, as soon as it is there."""
        with self.lines:
            found = self.lines.wait_for(lambda: self._search(pattern), timeout=patience)
        assert found, f"no {pattern!r} in the log:\n" + "".join(self.log)
        return found

    def _search(self, pattern: str) -> re.Match[str] | None:
        matches = (re.search(pattern, line) for line in self.log)
        return next((match for match in matches if match), None)

    def ready(self, patience: float = PATIENCE) -> Server:
        self.wait_for("ready: ", patience)
        return self

    def post(self, path: str, body: object, **more) -> httpx.Response:
        return self.http.post(path, json=body, **more)

    def generate(self, prompt: object, **fields) -> dict:
        answer = self.post("/generate", {"prompt": prompt, **fields})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def metric(self, name: str) -> float:
        text = self.http.get("/metrics").text
        return sum(float(v) for v in re.findall(rf"^tiedlm_{name}(?:\{{.*\}})? (\S+)$", text, re.M))

    def connect(self) -> socket.socket:
        made = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        made.settimeout(PATIENCE)
        return made

    def raw(self, request: bytes) -> RawAnswer:
        """Sends these bytes, and reads one answer."""
        with self.connect() as connection:
            send_all(connection, request)
            return read_answer(connection)

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def wait(self, patience: float = PATIENCE) -> int:
        return self.process.wait(patience)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE)
        self.reader.join(PATIENCE)
        assert self.process.stdout is not None
        self.process.stdout.close()


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("TIEDLM_")} | {
        name: os.environ[name] for name in ("TIEDLM_CACHE",) if name in os.environ
    }


class RawAnswer:
    def __init__(self, data: bytes) -> None:
        head, _, self.body = data.partition(b"\r\n\r\n")
        status, *lines = head.split(b"\r\n")
        self.status = int(status.split(b" ")[1])
        pairs = (line.decode("latin-1").split(": ", 1) for line in lines)
        self.headers = {name.lower(): value for name, value in pairs}

    @property
    def error(self) -> dict:
        return json.loads(self.body)["error"]


def send_all(connection: socket.socket, data: bytes) -> None:
    """As much as the server takes: it may refuse, and close, in between."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.sendall(data)


def read_answer(connection: socket.socket) -> RawAnswer:
    """One answer with a Content-Length, or all until the server closes."""
    data = b""
    while part := connection.recv(65536):
        data += part
        head, end, body = data.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        if end and length and len(body) >= int(length[1]):
            break
    assert data, "the server closed the connection without an answer"
    return RawAnswer(data)


def request_bytes(body: bytes, path: str = "/generate", *headers: str) -> bytes:
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *headers,
    ]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def run_command(*command: str) -> subprocess.CompletedProcess[str]:
    """Until it ends by itself, with the interpreter of the tests as `python`."""
    env = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    return subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=PATIENCE
    )


def events(response: httpx.Response) -> Iterator[dict | str]:
    """Of a stream: each event's JSON, and "[DONE]"."""
    for line in response.iter_lines():
        if line:
            assert line.startswith("data: "), line
            data = line.removeprefix("data: ")
            yield data if data == "[DONE]" else json.loads(data)


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never came about"


def is_idle(server: Server) -> bool:
    """No request has a place: as the gauges, which are read at each scrape, tell it."""
    names = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")
    return all(server.metric(name) == 0 for name in names)


def check_error(answer, status, kind, code):
    """The documented shape, and nothing that tells too much."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    assert len(answer.content) <= 8192
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["code"]) == (kind, code)
    assert "Traceback" not in error["message"]
    return error
