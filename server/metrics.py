"""
What Prometheus scrapes. One registry a server, none global; no label takes its value from a client.

It knows neither requests nor HTTP: the engine and the api call the method named after what
happened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest
from prometheus_client.registry import Collector

# Seconds. Steps of small models on a CPU take milliseconds, long requests minutes.
STEP_BUCKETS = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2.5, 5)
WAIT_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
WHOLE_BUCKETS = (0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600)


class Metrics:
    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._count_tokens()
        self._count_requests()
        self._time_requests()

    def render(self) -> bytes:
        """The Prometheus text format, as /metrics answers it."""
        return generate_latest(_WithoutCreated(self._registry))

    def watch(
        self,
        *,
        num_running: Callable[[], float],
        num_waiting: Callable[[], float],
        kv_usage: Callable[[], float],
    ) -> None:
        """Gauges are read at each scrape: they cannot lag behind."""
        self._gauge("num_requests_running", "Requests in the running batch.", num_running)
        self._gauge("num_requests_waiting", "Requests accepted but not running.", num_waiting)
        self._gauge("kv_cache_usage_perc", "KV pages that running requests hold, 0 to 1.", kv_usage)

    def http_answered(self, route: str, status: int) -> None:
        """`route` is the route's template, or one fixed word where none matched: never the path."""
        self._http.labels(route, str(status)).inc()

    def started(self, queue_seconds: float, num_prompt: int, num_reused: int) -> None:
        self._queue_time.observe(queue_seconds)
        self._cache_queries.inc(num_prompt)
        self._cache_hits.inc(num_reused)

    def prompt_done(self, num_prompt: int) -> None:
        self._prompt_tokens.inc(num_prompt)

    def first_token(self, seconds: float) -> None:
        self._generation_tokens.inc()
        self._first_token.observe(seconds)

    def next_tokens(self, count: int, seconds: float) -> None:
        """That came together, so long after the one before."""
        self._generation_tokens.inc(count)
        for _ in range(count):
            self._next_token.observe(seconds / count)

    def drafted(self, num_proposed: int, num_accepted: int) -> None:
        self._drafts_proposed.inc(num_proposed)
        self._drafts_accepted.inc(num_accepted)

    def ended(self, reason: str, seconds: float) -> None:
        """`reason` is an Ending's, but "stop" for one that was cancelled at a stop string."""
        self._ended.labels(reason).inc()
        if reason in ("stop", "length"):
            self._whole.observe(seconds)

    def preempted(self, num_jobs: int) -> None:
        self._preemptions.inc(num_jobs)

    def _count_tokens(self) -> None:
        self._prompt_tokens = self._counter("prompt_tokens", "Prompt tokens run or found.")
        self._generation_tokens = self._counter("generation_tokens", "Tokens drawn.")
        self._drafts_proposed = self._counter(
            "draft_tokens_proposed", "Tokens that speculation guessed."
        )
        self._drafts_accepted = self._counter(
            "draft_tokens_accepted", "Guesses that were the tokens drawn."
        )
        self._cache_queries = self._counter(
            "prefix_cache_queries", "Prompt tokens looked up in the prefix cache."
        )
        self._cache_hits = self._counter(
            "prefix_cache_hits", "Prompt tokens found in the prefix cache."
        )

    def _count_requests(self) -> None:
        self._http = self._counter("requests", "HTTP answers.", "route", "status")
        self._ended = self._counter("request_success", "Requests that ended.", "finished_reason")
        for reason in ("stop", "length", "cancelled", "failed"):
            self._ended.labels(reason)  # shown as 0 from the start: rates need a first value
        self._preemptions = self._counter("preemptions", "Requests put back for want of KV pages.")

    def _time_requests(self) -> None:
        self._first_token = self._histogram(
            "time_to_first_token_seconds", "From submit to the first token.", WAIT_BUCKETS
        )
        self._next_token = self._histogram(
            "inter_token_latency_seconds", "From one token of a request to its next.", STEP_BUCKETS
        )
        self._whole = self._histogram(
            "e2e_request_latency_seconds", "From submit to a whole answer.", WHOLE_BUCKETS
        )
        self._queue_time = self._histogram(
            "request_queue_time_seconds", "From submit to the first row in a step.", WAIT_BUCKETS
        )

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"tiedlm_{name}", text, labels, registry=self._registry)

    def _gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        Gauge(f"tiedlm_{name}", text, registry=self._registry).set_function(read)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"tiedlm_{name}", text, buckets=buckets, registry=self._registry)


class _WithoutCreated(Collector):
    """The client library puts a time of creation beside each counter and histogram; nobody asks."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        for family in self._registry.collect():
            family.samples = [each for each in family.samples if not each.name.endswith("_created")]
            yield family
