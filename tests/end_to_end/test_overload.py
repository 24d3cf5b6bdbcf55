"""
Four times what the server can take. Its steps are scripted to cost 50 ms, so that latencies are the
queue's doing and not the machine's.
"""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection

import pytest

from tests.end_to_end.running import PATIENCE, Server, eventually, is_idle
from tests.scripted import SLOW

BATCH, QUEUE = 4, 4
CAPACITY = BATCH + QUEUE
BODY = json.dumps({"prompt": SLOW, "max_tokens": 10, "ignore_eos": True})  # half a second alone
SECONDS = 5.0


@pytest.fixture(scope="module")
def small():
    with Server("--max-batch", str(BATCH), "--max-queue", str(QUEUE)) as server:
        yield server.ready()


def insist(port, end):
    """One client that asks again and again -> (status, seconds, Retry-After) of each answer."""
    told = []
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    while (asked := time.monotonic()) < end:
        connection.request("POST", "/generate", BODY, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        seconds = time.monotonic() - asked
        told.append((answer.status, seconds, answer.headers["Retry-After"]))
        if answer.status == 429:
            time.sleep(0.3)  # less than it was told to wait
    connection.close()
    return told


def load(server, num_clients):
    with ThreadPoolExecutor(num_clients) as pool:
        end = time.monotonic() + SECONDS
        clients = [pool.submit(insist, server.port, end) for _ in range(num_clients)]
        return [answer for client in clients for answer in client.result(PATIENCE)]


def accepted(told):
    return sorted(seconds for status, seconds, _ in told if status == 200)


def test_what_is_accepted_keeps_its_latency_and_the_rest_is_told_at_once(small):
    at_capacity = accepted(load(small, CAPACITY))
    told = load(small, 4 * CAPACITY)
    ended = time.monotonic()
    over = accepted(told)
    refused = [(seconds, after) for status, seconds, after in told if status != 200]
    assert {status for status, *_ in told} == {200, 429}
    assert len(refused) > len(over)
    # Refusing costs time too, but the work goes on; and none of it waits longer than a full queue
    # makes it wait.
    assert len(over) >= 0.8 * len(at_capacity)
    assert over[len(over) // 2] <= 1.3 * at_capacity[len(at_capacity) // 2]
    assert over[-1] <= 1.5 * at_capacity[-1]
    waits = sorted(seconds for seconds, _ in refused)
    assert waits[len(waits) // 2] < 0.05
    assert waits[int(0.99 * len(waits))] < 0.25
    assert all(int(after) >= 1 for _, after in refused)
    eventually(lambda: is_idle(small))
    assert small.generate("ab", max_tokens=5)["usage"]["completion_tokens"] == 5
    assert time.monotonic() - ended < 5
