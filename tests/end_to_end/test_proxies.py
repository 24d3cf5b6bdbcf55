"""
docs/proxies as they stand, before the real server with its default checkpoint.

Skipped where nginx or Caddy is not installed; .ci/run installs both.
"""

import statistics
import time
from itertools import pairwise

import httpx
import pytest

from server.settings import DEFAULT_MODEL
from tests.end_to_end.proxies import KINDS, NAME, Proxy
from tests.end_to_end.running import TIEDLM, Server, events, eventually, is_idle

KEY = "a key of the proxy's tests"
WITH_KEY = {"Authorization": f"Bearer {KEY}"}
STORY = {"prompt": "Once upon a time", "temperature": 0, "ignore_eos": True, "stream": True}
MAX_BODY_BYTES = 4 * 2**20


@pytest.fixture(scope="module")
def behind():
    """Without speculation each step is an event."""
    flags = ("--api-key", KEY, "--allowed-host", NAME, "--speculation", "off")
    with Server(*flags, command=[*TIEDLM, "serve", DEFAULT_MODEL]) as server:
        server.http.headers.update(WITH_KEY)
        yield server.ready(patience=600)


@pytest.fixture(scope="module", params=KINDS)
def proxy(request, behind):
    with Proxy(KINDS[request.param], behind.port) as running:
        yield running


def streamed(http, num_tokens):
    """The events of a stream, and seconds between each and the next."""
    body = STORY | {"max_tokens": num_tokens}
    with http.stream("POST", "/generate", json=body, headers=WITH_KEY) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        told, times = [], []
        for event in events(answer):
            told.append(event)
            times.append(time.monotonic())
    gaps = [after - before for before, after in pairwise(times)]
    return told, gaps


def test_a_stream_arrives_event_by_event_at_the_pace_of_one_without_a_proxy(behind, proxy):
    direct, direct_gaps = streamed(behind.http, 100)
    told, gaps = streamed(proxy.http, 100)
    assert told[-1] == direct[-1] == "[DONE]"
    texts = [[event["choices"] for event in stream[:-1]] for stream in (direct, told)]
    assert texts[0] == texts[1]
    assert len(told) > 90
    assert sum(gaps) > sum(direct_gaps) / 3
    assert statistics.median(gaps) < 3 * statistics.median(direct_gaps)
    assert statistics.median(gaps) > statistics.median(direct_gaps) / 3


def test_the_first_event_is_there_while_the_rest_is_computed(behind, proxy):
    eventually(lambda: is_idle(behind))
    body = STORY | {"max_tokens": 2000}
    with proxy.http.stream("POST", "/generate", json=body, headers=WITH_KEY) as answer:
        stream = events(answer)  # kept: with it goes the connection
        next(stream)
        assert behind.metric("num_requests_running") == 1


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_client_that_leaves_frees_its_place(behind, proxy, is_stream):
    eventually(lambda: is_idle(behind))
    before = behind.metric("generation_tokens_total")
    body = STORY | {"max_tokens": 4000, "stream": is_stream}
    with proxy.client() as client:
        leave_once_it_runs(client, body, behind)
    eventually(lambda: is_idle(behind))
    assert behind.metric("generation_tokens_total") - before < 2000


def leave_once_it_runs(client, body, behind):
    if body["stream"]:
        with client.stream("POST", "/generate", json=body, headers=WITH_KEY) as answer:
            next(events(answer))
        return
    impatient = httpx.Timeout(30, read=0.3)
    with pytest.raises(httpx.ReadTimeout):
        client.post("/generate", json=body, headers=WITH_KEY, timeout=impatient)


def test_keys_are_asked_for_as_without_a_proxy(proxy):
    body = {"prompt": "a", "max_tokens": 1}
    refused = proxy.http.post("/generate", json=body)
    assert refused.status_code == 401
    assert refused.json()["error"]["code"] == "invalid_api_key"
    assert proxy.http.post("/generate", json=body, headers=WITH_KEY).status_code == 200
    assert proxy.http.get("/ready").status_code == 200


def test_another_host_gets_no_answer_of_the_model(proxy):
    headers = WITH_KEY | {"Host": "evil.example"}
    answer = proxy.http.post("/generate", json={"prompt": "a", "max_tokens": 1}, headers=headers)
    assert "choices" not in answer.text
    if "x-request-id" in answer.headers:  # it came to the server
        assert answer.status_code == 421


def test_a_request_keeps_its_id(behind, proxy):
    name = f"of-a-client-{proxy.port}"
    answer = proxy.http.get("/props", headers=WITH_KEY | {"X-Request-Id": name})
    assert answer.headers["x-request-id"] == name
    behind.wait_for(f"GET /props 200 .* id={name}")
    assert len(proxy.http.get("/health").headers["x-request-id"]) == 32


def test_a_body_of_the_largest_size_comes_through_and_a_larger_one_is_refused(proxy):
    def answer_to(size):
        body = b'{"prompt": "' + b"a " * size
        body = body[: size - 2] + b'"}'
        headers = WITH_KEY | {"Content-Type": "application/json"}
        return proxy.http.post("/generate", content=body, headers=headers)

    answer = answer_to(MAX_BODY_BYTES)
    assert answer.json()["error"]["code"] == "context_length_exceeded"
    assert answer_to(MAX_BODY_BYTES + 1).status_code == 413


def test_a_body_in_chunks_that_is_too_large_is_refused(proxy):
    chunks = (b" " * 65536 for _ in range(MAX_BODY_BYTES // 65536 + 1))
    headers = WITH_KEY | {"Content-Type": "application/json"}
    assert proxy.http.post("/generate", content=chunks, headers=headers).status_code == 413


@pytest.mark.parametrize("path", ["/metrics", "/%6detrics", "//metrics", "/./metrics", "/metrics/"])
def test_metrics_are_not_public(proxy, path):
    answer = proxy.http.get(f"https://127.0.0.1:{proxy.port}{path}", headers=WITH_KEY)
    assert answer.status_code in (proxy.kind.refuses_metrics, 404)
    assert "tiedlm_" not in answer.text
