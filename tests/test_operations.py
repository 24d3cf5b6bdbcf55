"""What docs/operations.md and the files it hands out say, against the code they speak of."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from model.kv_pool import PAGE_SIZE, num_bytes_per_token
from server.flags import OTHER_VARIABLES, flag_of
from server.kv_budget import RESERVE
from server.metrics import Metrics
from server.settings import ENV_PREFIX, Settings
from weights.catalog import CATALOG, resolve
from weights.inspect import parameters
from weights.load import load

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGE = (DOCS / "operations.md").read_text()
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVER = COMPOSE["services"]["tiedlm"]
ALERTS = yaml.safe_load((DOCS / "prometheus-alerts.yml").read_text())
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]


def rows(text):
    """Of every table: its cells."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.parametrize("name", CATALOG)
def test_the_sizes_told_are_the_models(name):
    checkpoint = load(resolve(name))
    config = checkpoint.config
    per_token = 2 * config.num_layers * config.num_kv_heads * config.head_dim * 4
    assert per_token == num_bytes_per_token(config)

    def cache(num_requests, tokens):
        pages = num_requests * -(-tokens // PAGE_SIZE)
        return f"{round(pages * PAGE_SIZE * per_token / 1e6):,} MB"

    [row] = [row for row in rows(PAGE) if row[0] == name]
    weights = f"{round(parameters(checkpoint) * 4 / 1e6):,} MB"
    assert row[1:] == [f"{per_token:,} B", weights, cache(8, 1024), cache(32, 8192)]


def test_the_example_adds_up():
    found = re.search(r"(\d+) \+ (\d+) \+ (\d+) \+ (\d+) = ([\d,]+) MB", PAGE)
    *parts, total = (int(number.replace(",", "")) for number in found.groups())
    assert sum(parts) == total
    assert parts[-1] == round(RESERVE / 1e6)


def test_every_flag_has_its_reason():
    told = set(re.findall(r"--[a-z-]+", PAGE))
    assert {flag_of(name) for name in Settings.model_fields} <= told


def test_every_alert_is_told_and_asks_for_what_the_metrics_page_has():
    assert {row[0] for row in rows(PAGE)} >= {rule["alert"] for rule in RULES}
    metrics = Metrics()
    metrics.watch(num_running=lambda: 0, num_waiting=lambda: 0, kv_usage=lambda: 0)
    metrics.http_answered("/generate", 200)
    page = metrics.render().decode()
    for rule in RULES:
        assert rule["labels"]["severity"] in ("page", "ticket")
        for name in re.findall(r"tiedlm_\w+", rule["expr"]):
            assert f"\n{name}" in page, name


@pytest.mark.parametrize(
    "command", [["check", "rules", DOCS / "prometheus-alerts.yml"], ["test", "rules"]]
)
def test_the_alerts_pass_prometheus_own_checks(command):
    """promtool where it is installed, as .ci/run does; the rules' metrics are checked above."""
    if promtool := shutil.which("promtool"):
        if command == ["test", "rules"]:
            command = [*command, ROOT / "tests" / "test_prometheus_alerts.yml"]
        done = subprocess.run([promtool, *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_fired_once_by_their_test():
    text = (ROOT / "tests" / "test_prometheus_alerts.yml").read_text()
    assert all(rule["alert"] in text for rule in RULES)


def test_compose_mounts_files_that_are_there():
    mounts = [
        mount.split(":")
        for service in COMPOSE["services"].values()
        for mount in service.get("volumes", [])
        if mount.startswith("./")
    ]
    assert len(mounts) >= 6
    for source, _, mode in mounts:
        assert (ROOT / source).is_file(), source
        assert mode == "ro"
    assert {"grafana-dashboard.json", "prometheus.yml"} <= {Path(m[0]).name for m in mounts}


def test_compose_locks_the_server_down_and_gives_it_time_to_drain():
    assert SERVER["read_only"] is True
    assert SERVER["cap_drop"] == ["ALL"]
    drain = Settings.model_fields["drain_timeout"].default
    assert int(SERVER["stop_grace_period"].removesuffix("s")) > drain
    known = {ENV_PREFIX + name.upper() for name in Settings.model_fields} | OTHER_VARIABLES
    assert set(SERVER["environment"]) <= known


def test_compose_is_reached_from_this_machine_alone():
    for service in COMPOSE["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])


def test_compose_scrapes_the_server_by_a_name_that_it_answers_to():
    [group] = yaml.safe_load((DOCS / "compose" / "targets.yml").read_text())
    assert group["targets"] == [f"{SERVER['environment']['TIEDLM_ALLOWED_HOST']}:8000"]
    scrape = yaml.safe_load((DOCS / "prometheus.yml").read_text())
    [job] = scrape["scrape_configs"]
    [files] = job["file_sd_configs"]
    mounted = " ".join(COMPOSE["services"]["prometheus"]["volumes"])
    assert f"/etc/prometheus/{files['files'][0]}" in mounted
    assert f"/etc/prometheus/{scrape['rule_files'][0]}" in mounted
