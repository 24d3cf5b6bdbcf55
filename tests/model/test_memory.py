"""What scoring a long prompt adds to a process at its peak, whatever the vocabulary."""

import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from model.answers import CHUNK_BYTES
from tests.end_to_end.running import ROOT, TIEDLM, Server

V, TOP = 262_144, 20
SCORE_BYTES = 256  # a Score with its numbers, in Python
SCRIPT = f"""
import sys, torch
from model.answers import answer_all
from model.blockwise import Scoring
from model.embedding import TiedEmbedding
from model.kernels import choose
from model.large_blocks import give_back_large_blocks
from model.step import Ask
from tests.model.test_memory import peak_bytes, resident_bytes, reset_peak

give_back_large_blocks()
embedding, ask = TiedEmbedding(torch.randn({V}, 16), choose(2)), Ask(top={TOP}, summary=True)
hidden, targets = torch.randn(500, 16), torch.randint(0, {V}, (500,))
with torch.inference_mode():
    answer_all([], hidden[:0], [Scoring(targets[:1], ask, hidden[:1])], embedding)
    before = resident_bytes("self")
    reset_peak("self")
    answer_all([], hidden[:0], [Scoring(targets, ask, hidden)], embedding)
print(peak_bytes("self") - before)
"""


def status(pid, name):
    return int(re.search(rf"{name}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[1]) << 10


def resident_bytes(pid):
    return status(pid, "VmRSS")


def peak_bytes(pid):
    return status(pid, "VmHWM")


def reset_peak(pid):
    Path(f"/proc/{pid}/clear_refs").write_text("5")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_scores_of_many_positions_take_one_chunk_at_the_largest_vocabulary():
    """All logits of these 500 positions would be 524 MB."""
    told = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert int(told.stdout) < 1.1 * CHUNK_BYTES + 500 * (TOP + 1) * SCORE_BYTES


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_alternatives_of_8000_positions_add_a_chunk_and_the_answer_itself():
    """Of Gemma's 262,144 tokens: all logits would be 8.4 GB."""
    flags = ("--kv-cache-tokens", "8192", "--max-context", "8192", "--precision", "float32")
    ids = random.Random(1).choices(range(1000, V), k=8000)
    with Server(*flags, command=[*TIEDLM, "serve", "gemma-3-270m"]) as server:
        server.ready(600)
        server.http.timeout = 900
        pid = server.process.pid

        def added(first, **fields):
            """Bytes at the peak, over what was resident before."""
            before = resident_bytes(pid)
            reset_peak(pid)
            answer = server.post("/generate", {"prompt": [[first, *ids]], "max_tokens": 0} | fields)
            assert answer.status_code == 200, answer.text
            return peak_bytes(pid) - before, len(answer.content)

        added(5)  # every page of the cache is resident from now on
        bare, _ = added(6)
        told, size = added(7, prompt_logprobs=TOP)
    # The answer: its JSON, what it is made of, and the scores kept beside the pages.
    print(f"bare {bare >> 20} MB, with alternatives {told >> 20} MB, JSON {size >> 20} MB")
    assert told - bare < 1.1 * CHUNK_BYTES + 8001 * (TOP + 1) * 1024
