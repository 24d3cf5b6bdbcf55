"""
Work that may not end, or eat all memory, in a process of its own that can be killed: a chat
template from a model file, a grammar from a client.

`Confined` is the server's side, `work` the child's. A message is JSON and some bytes, behind the
length of each. The child bounds itself: processor time a call by a timer whose signal ends it,
memory by what the system grants. It ends with its standard input, so it never outlives the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import select
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import IO, Any

Json = dict[str, Any]
Answer = tuple[Json, bytes]
LENGTHS = struct.Struct("<II")
MAX_WAIT = 60.0  # seconds for an answer, should a signal not have ended a child that hangs
START_SECONDS = 60.0  # of processor time
LAST_BREATH = 1.0  # seconds for a child whose pipe has closed to be gone
TIMEOUTS = (-signal.SIGPROF, -signal.SIGKILL)


class Overrun(Exception):
    """The child died of this call. The next call starts another."""

    def __init__(self, *, is_timeout: bool) -> None:
        """Else it was memory, which earlier calls may have used up."""
        super().__init__(is_timeout)
        self.is_timeout = is_timeout


class Confined:
    def __init__(
        self, module: str, setup: Json, data: bytes = b"", *, cpu_seconds: float, memory: int
    ) -> None:
        """`memory`: bytes beyond what the child needs to start. Nothing starts before a call."""
        self._command = [sys.executable, "-P", "-m", module]
        self._limits = {"cpu_seconds": cpu_seconds, "memory": memory}
        self._setup, self._data = setup, data
        self._child: subprocess.Popen[bytes] | None = None
        self._lock = Lock()

    def call(self, request: Json) -> Answer:
        """One at a time. A request may name `cpu_seconds` of its own. Raises Overrun."""
        with self._lock:
            child = self._living() or self._start()
            assert child.stdin is not None
            assert child.stdout is not None
            try:
                send(child.stdin, request)
                ready, _, _ = select.select([child.stdout], [], [], MAX_WAIT)
                answer = receive(child.stdout) if ready else None
            except BrokenPipeError:
                answer = None
            if answer is None:
                raise Overrun(is_timeout=self._end() in TIMEOUTS)
            return answer

    async def call_at_once(self, request: Json) -> Answer | None:
        """
        As `call`, on the event loop: a thread would take longer than a brief call does. None: the
        child is not there, or is at work. The request and its answer fit into a pipe.
        """
        if not self._lock.acquire(blocking=False):
            return None
        child = self._living()
        if child is None or not is_sent(child, request):
            self._lock.release()
            return None
        # A caller that is cancelled leaves an answer behind that must still be read.
        return await asyncio.shield(self._answer_of(child))

    def _answer_of(self, child: subprocess.Popen[bytes]) -> asyncio.Future[Answer]:
        """Under the lock, which is released with the answer."""
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[Answer] = loop.create_future()
        late = loop.call_later(MAX_WAIT, child.kill)
        assert child.stdout is not None
        pipe = child.stdout

        def end() -> None:
            overrun = Overrun(is_timeout=self._end() in TIMEOUTS)
            self._lock.release()
            loop.call_soon_threadsafe(answered.set_exception, overrun)

        def read() -> None:
            loop.remove_reader(pipe)
            late.cancel()
            answer = receive(pipe)
            if answer is None:
                loop.run_in_executor(None, end)
                return
            self._lock.release()
            answered.set_result(answer)

        loop.add_reader(pipe, read)
        return answered

    def close(self) -> None:
        with self._lock:
            if self._child is not None:
                self._child.kill()
            self._end()

    def _living(self) -> subprocess.Popen[bytes] | None:
        """One that was killed between calls is no call's fault."""
        if self._child is not None and self._child.poll() is not None:
            self._end()
        return self._child

    def _start(self) -> subprocess.Popen[bytes]:
        root = str(Path(__file__).parents[1])  # found as this process has found it
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        self._child = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": path},
            start_new_session=True,  # a terminal's interrupt is for the server alone
        )
        assert self._child.stdin is not None
        send(self._child.stdin, {"limits": self._limits, "setup": self._setup}, self._data)
        return self._child

    def _end(self) -> int | None:
        """How the child ended."""
        child, self._child = self._child, None
        if child is None:
            return None
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(LAST_BREATH)
        child.kill()
        with contextlib.suppress(BrokenPipeError):
            child.communicate()
        return child.returncode


def is_sent(child: subprocess.Popen[bytes], request: Json) -> bool:
    assert child.stdin is not None
    try:
        send(child.stdin, request)
    except BrokenPipeError:
        return False
    return True


def send(pipe: IO[bytes], message: Json, data: bytes = b"") -> None:
    text = json.dumps(message).encode()
    pipe.write(LENGTHS.pack(len(text), len(data)) + text + data)
    pipe.flush()


def receive(pipe: IO[bytes]) -> Answer | None:
    """None: the other side has ended."""
    head = pipe.read(LENGTHS.size)
    if len(head) < LENGTHS.size:
        return None
    num_text, num_data = LENGTHS.unpack(head)
    body = pipe.read(num_text + num_data)
    if len(body) < num_text + num_data:
        return None
    return json.loads(body[:num_text]), body[num_text:]


def work(start: Callable[[Json, bytes], Callable[[Json], Answer]]) -> None:
    """The child's main: `start` takes the setup and gives what answers a request."""
    pipe, answers = sys.stdin.buffer, sys.stdout.buffer
    first = receive(pipe)
    if first is None:
        return
    own, data = first
    signal.setitimer(signal.ITIMER_PROF, START_SECONDS)
    answer = start(own["setup"], data)
    bound_memory(own["limits"]["memory"])
    while (request := receive(pipe)) is not None:
        # SIGPROF is not handled: it ends the process, whatever it is doing.
        seconds = request[0].get("cpu_seconds", own["limits"]["cpu_seconds"])
        signal.setitimer(signal.ITIMER_PROF, seconds)
        reply = answer(request[0])
        signal.setitimer(signal.ITIMER_PROF, 0)
        send(answers, *reply)


def bound_memory(more: int) -> None:
    """Address space beyond what is in use; where the system does not tell, time alone is bound."""
    with contextlib.suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + more
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
