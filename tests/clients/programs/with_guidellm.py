"""guidellm as a load client: `guidellm run` on the chat route, with a tokenizer folder."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path


def test_load_on_chat(url):
    with tempfile.TemporaryDirectory() as folder:
        command = [
            Path(sys.executable).with_name("guidellm"),
            "run",
            "--backend",
            f"kind=openai_http,target={url}",
            "--profile",
            "kind=concurrent,streams=2",
            "--constraint",
            "kind=max_requests,count=4",
            "--tokenizer",
            f"kind=huggingface_auto,model={os.environ['LM_EVAL_FOLDER']}",
            "--data",
            "kind=synthetic_text,prompt_tokens=24,output_tokens=8",
            "--output",
            f"kind=json,path={folder}/out.json",
            "--disable-console-interactive",
        ]
        subprocess.run(command, check=True, cwd=folder)
        [benchmark] = json.loads((Path(folder) / "out.json").read_text())["benchmarks"]
        totals = benchmark["metrics"]["request_totals"]
        assert totals["successful"] >= 3, totals  # it may leave one out, as warming up
        assert totals["errored"] == 0, totals
