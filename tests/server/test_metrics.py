from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from server.metrics import Metrics

DOCS = Path(__file__).parents[2] / "docs"
NAMES = {
    "tiedlm_num_requests_running",
    "tiedlm_num_requests_waiting",
    "tiedlm_kv_cache_usage_perc",
    "tiedlm_prompt_tokens_total",
    "tiedlm_generation_tokens_total",
    "tiedlm_prefix_cache_queries_total",
    "tiedlm_prefix_cache_hits_total",
    "tiedlm_request_success_total",
    "tiedlm_requests_total",
    "tiedlm_time_to_first_token_seconds",
    "tiedlm_inter_token_latency_seconds",
    "tiedlm_e2e_request_latency_seconds",
    "tiedlm_request_queue_time_seconds",
    "tiedlm_preemptions_total",
    "tiedlm_draft_tokens_proposed_total",
    "tiedlm_draft_tokens_accepted_total",
}


@pytest.fixture
def metrics() -> Metrics:
    metrics = Metrics()
    metrics.watch(num_running=lambda: 3, num_waiting=lambda: 2, kv_usage=lambda: 0.25)
    metrics.http_answered("/generate", 200)
    metrics.started(0.01, 100, 64)
    metrics.prompt_done(100)
    metrics.first_token(0.2)
    metrics.next_tokens(2, 0.06)
    metrics.drafted(7, 4)
    metrics.ended("stop", 1.5)
    metrics.ended("cancelled", 0.5)
    metrics.preempted(2)
    return metrics


def families(metrics: Metrics) -> dict:
    page = metrics.render().decode()
    return {family.name: family for family in text_string_to_metric_families(page)}


def test_the_page_has_every_promised_name_and_no_other(metrics):
    names = {
        family.name + ("_total" if family.type == "counter" else "")
        for family in families(metrics).values()
    }
    assert names == NAMES


def test_values_are_what_was_recorded(metrics):
    samples = {
        (sample.name.removeprefix("tiedlm_"), *sample.labels.values()): sample.value
        for family in families(metrics).values()
        for sample in family.samples
    }
    assert samples["num_requests_running",] == 3
    assert samples["kv_cache_usage_perc",] == 0.25
    assert samples["requests_total", "/generate", "200"] == 1
    assert samples["prefix_cache_queries_total",] == 100
    assert samples["prefix_cache_hits_total",] == 64
    assert samples["generation_tokens_total",] == 3
    assert samples["inter_token_latency_seconds_count",] == 2
    assert samples["draft_tokens_proposed_total",] == 7
    assert samples["draft_tokens_accepted_total",] == 4
    assert samples["request_success_total", "stop"] == 1
    assert samples["request_success_total", "failed"] == 0
    assert samples["e2e_request_latency_seconds_count",] == 1
    assert samples["preemptions_total",] == 2


def test_gauges_are_read_at_each_scrape():
    metrics, running = Metrics(), [0]
    metrics.watch(num_running=lambda: running[0], num_waiting=lambda: 0, kv_usage=lambda: 0)
    for running[0] in (4, 0):
        (sample,) = families(metrics)["tiedlm_num_requests_running"].samples
        assert sample.value == running[0]


def test_two_servers_in_one_process_do_not_share_a_registry(metrics):
    assert Metrics().render() != metrics.render()


def test_the_page_passes_prometheus_own_check(metrics):
    """promtool where it is installed; in any case the same rules on what its linter looks at."""
    if promtool := shutil.which("promtool"):
        check = subprocess.run(
            [promtool, "check", "metrics"], input=metrics.render(), capture_output=True, check=False
        )
        assert (check.returncode, check.stderr) == (0, b"")
    for family in families(metrics).values():
        assert re.fullmatch(r"[a-z][a-z0-9_]*", family.name)
        assert family.documentation.endswith(".")
        assert family.type in ("counter", "gauge", "histogram")
        assert family.type != "histogram" or family.name.endswith("_seconds")


def test_the_dashboard_asks_only_for_what_the_page_has(metrics):
    dashboard = json.loads((DOCS / "grafana-dashboard.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked = set(re.findall(r"tiedlm_\w+", " ".join(queries)))
    shown = {sample.name for family in families(metrics).values() for sample in family.samples}
    assert asked <= shown
    assert {re.sub("_bucket$", "", name) for name in asked} == NAMES


def test_the_scrape_example_passes_prometheus_own_check():
    example = DOCS / "prometheus.yml"
    assert "127.0.0.1:8000" in (DOCS / "prometheus-targets.yml").read_text()
    if promtool := shutil.which("promtool"):
        check = subprocess.run(
            [promtool, "check", "config", example], capture_output=True, check=False
        )
        assert check.returncode == 0, check.stdout
