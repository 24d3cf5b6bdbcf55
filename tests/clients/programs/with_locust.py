"""locust with benchmarks/locustfile.py: streamed chat and scoring by several users at once."""

import json
import subprocess
import sys
from pathlib import Path

LOCUSTFILE = Path(__file__).parents[3] / "benchmarks" / "locustfile.py"


def test_load_on_chat_and_scoring(url):
    command = [
        *(sys.executable, "-m", "locust", "--locustfile", LOCUSTFILE, "--headless"),
        *("--users", "4", "--spawn-rate", "4", "--run-time", "10s", "--host", url),
        *("--json", "--stop-timeout", "60"),
    ]
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    rows = {row["name"]: row for row in json.loads(told)}
    for name in ("/v1/chat/completions", "/v1/completions", "time to first token"):
        assert rows[name]["num_requests"] >= 1, rows
        assert rows[name]["num_failures"] == 0, rows
