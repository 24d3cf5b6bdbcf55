"""A container of the image under test, as locked down as it can be, and how to ask inside it."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import time
import uuid
from pathlib import Path

ENGINE = shlex.split(os.environ.get("ENGINE", "docker"))
IMAGE = os.environ.get("IMAGE", "tiedlm:test")
RUN_OPTIONS = shlex.split(os.environ.get("RUN_OPTIONS", ""))
LOCKED = [
    "--read-only",
    "--network=none",
    "--memory=2g",
    "--cap-drop=all",
    "--security-opt=no-new-privileges",
    "--user=10001",
]
PATIENCE = 180  # seconds that anything may take before a test gives up on it
ASK = """
import http.client, sys
connection = http.client.HTTPConnection("127.0.0.1", 8000, timeout=120)
method, path, body = sys.argv[1:]
connection.request(method, path, body or None, {"Content-Type": "application/json"})
answer = connection.getresponse()
sys.stdout.write(answer.read().decode())
sys.exit(answer.status != 200)
"""


def engine(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*ENGINE, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)


def must(*arguments: str) -> str:
    done = engine(*arguments)
    assert done.returncode == 0, f"{arguments}: {done.stderr}"
    return done.stdout.strip()


def inspect(kind: str, name: str) -> dict:
    return json.loads(must(kind, "inspect", name))[0]


class Container:
    """
    `ready_seconds`: from before the engine was asked to run it until /ready was seen as 200.

    `models` is mounted at /models, for reading alone; all others must be able to read it.
    """

    def __init__(self, models: Path | None = None, **variables: str) -> None:
        self.name = f"tiedlm-test-{uuid.uuid4().hex[:8]}"
        settings = [f"--env={name}={value}" for name, value in variables.items()]
        if models is not None:
            settings.append(f"--volume={models}:/models:ro")
        started = time.monotonic()
        must("run", "--detach", f"--name={self.name}", *LOCKED, *RUN_OPTIONS, *settings, IMAGE)
        while self.ask_anyhow("GET", "/ready").returncode:
            assert self.state()["Running"], engine("logs", self.name)
            assert time.monotonic() < started + PATIENCE, engine("logs", self.name)
            time.sleep(0.1)
        self.ready_seconds = time.monotonic() - started
        self.resident_at_ready = self.memory("VmRSS")

    def state(self) -> dict:
        return inspect("container", self.name)["State"]

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        return engine("exec", self.name, *command)

    def ask_anyhow(
        self, method: str, path: str, body: object = None
    ) -> subprocess.CompletedProcess[str]:
        return self.execute("python", "-c", ASK, method, path, json.dumps(body) if body else "")

    def ask(self, path: str, body: object = None) -> str:
        done = self.ask_anyhow("POST" if body else "GET", path, body)
        assert done.returncode == 0, done
        return done.stdout

    def status(self, name: str) -> str:
        """A line of /proc/1/status."""
        lines = self.execute("cat", "/proc/1/status").stdout.splitlines()
        return next(line.split()[1] for line in lines if line.startswith(f"{name}:"))

    def memory(self, name: str) -> int:
        """Bytes."""
        return int(self.status(name)) * 1024

    def remove(self) -> None:
        engine("rm", "--force", self.name)

    def __enter__(self) -> Container:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()
