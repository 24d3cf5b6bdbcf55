"""A server under measurement: its own process, on a free loopback port, ended by its process id."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

import httpx


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def resident_bytes(pid: int) -> int:
    """What the process occupies in memory, file pages it has mapped and touched included."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


class Process:
    """
    `with Process(command) as server:` is ready on entry; `ready_seconds` is how long that took.

    command: port -> arguments. probe: the route that answers 200 once the model is loaded.
    """

    def __init__(
        self,
        command: Callable[[int], Sequence[str]],
        probe: str,
        timeout: float = 120.0,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.port, self.timeout = free_port(), timeout
        self.url = f"http://127.0.0.1:{self.port}"
        self._command, self._probe = command(self.port), probe
        self._environment = {**os.environ, **(environment or {})}

    def __enter__(self) -> Process:
        started = time.perf_counter()
        self.process = subprocess.Popen(
            self._command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=self._environment,
        )
        while not self._is_ready():
            if self.process.poll() is not None or time.perf_counter() - started > self.timeout:
                self.process.kill()
                raise RuntimeError(f"not ready in {self.timeout} s: {' '.join(self._command)}")
            time.sleep(0.02)
        self.ready_seconds = time.perf_counter() - started
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.terminate()
        self.process.wait(timeout=60)

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}{self._probe}", timeout=1.0).status_code == 200
        except httpx.TransportError:
            return False

    def resident_bytes(self) -> int:
        return resident_bytes(self.process.pid)


class Server(Process):
    """`tiedlm serve` with these flags."""

    def __init__(self, *flags: str, timeout: float = 120.0) -> None:
        self.flags = flags
        super().__init__(
            lambda port: [sys.executable, "-m", "server", "serve", "--port", str(port), *flags],
            "/ready",
            timeout,
        )
