"""A server under measurement: its own process, on a free loopback port, ended by its process id."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import httpx

TIEDLM_SERVE = ("server", "serve")


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


class Server:
    """
    `with Server("--threads", "2") as server:` is ready on entry; `ready_seconds` is how long that
    took. `command`: what is run, `tiedlm serve` if nothing else is said.
    """

    def __init__(
        self, *flags: str, timeout: float = 120.0, command: Sequence[str] = TIEDLM_SERVE
    ) -> None:
        self.flags, self.timeout, self.port = (*command, *flags), timeout, free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Server:
        command = [sys.executable, "-m", *self.flags, "--port", str(self.port)]
        started = time.perf_counter()
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while not self._is_ready():
            if self.process.poll() is not None or time.perf_counter() - started > self.timeout:
                self.process.kill()
                raise RuntimeError(f"not ready after {self.timeout} s: {' '.join(command)}")
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
            return httpx.get(f"{self.url}/ready", timeout=1.0).status_code == 200
        except httpx.TransportError:
            return False

    def resident_bytes(self) -> int:
        return resident_bytes(self.process.pid)
