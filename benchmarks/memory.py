"""
What loading a Hugging Face folder of N bytes takes at its peak: under N + 10 %, sharded or not.

Each case is loaded by a process of its own, after a tiny one that has paid for imports and threads.
The kernel's high-water mark counts memory-mapped pages too. The last line is one line of JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import transformers

from tests.model.tiny_families import save
from tests.weights.tiny import VOCAB_SIZE

LIMIT = 1.10
SIZE = 2_000_000_000  # bytes
CASES = (  # family, how it is stored, largest shard
    ("llama", torch.bfloat16, "50GB"),
    ("llama", torch.bfloat16, "300MB"),
    ("llama", torch.float32, "300MB"),
    ("gpt2", torch.float32, "50GB"),  # every matrix is transposed
)
CHILD = """
import json, sys
from pathlib import Path
from model.runner import build_transformer
from weights.load import load

def status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(name))

tiny, folder, precision = sys.argv[1:]
kept = build_transformer(load(Path(tiny)), precision)
Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
before = status("VmRSS")
model = build_transformer(load(Path(folder)), precision)
print(json.dumps(status("VmHWM") - before))
"""


def generate(
    family: str, dtype: torch.dtype, shard: str, folder: Path, size: int, width: int = 1024
) -> Path:
    """About `size` bytes of weights that nobody trained."""
    ids = {"vocab_size": VOCAB_SIZE, "bos_token_id": 1, "eos_token_id": 2}
    layers = max(1, round(size / dtype.itemsize / (12 * width * width)))
    if family == "gpt2":
        config = transformers.GPT2Config(
            **ids, n_embd=width, n_layer=layers, n_head=16, n_positions=64
        )
    else:
        config = transformers.LlamaConfig(
            **ids,
            hidden_size=width,
            intermediate_size=8 * width // 3,
            num_hidden_layers=layers,
            num_attention_heads=16,
            max_position_embeddings=64,
            tie_word_embeddings=True,
        )
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(0.01)
    model.tie_weights()
    model.save_pretrained(folder, max_shard_size=shard)
    return save_tokenizer(folder)


def save_tokenizer(folder: Path) -> Path:
    save(_Nothing(), folder)
    return folder


class _Nothing:
    def save_pretrained(self, folder: Path) -> None:
        """The weights are there already."""


def peak(folder: Path, tiny: Path, dtype: torch.dtype) -> int:
    """Bytes that loading `folder` adds at most to a process that has loaded `tiny`."""
    precision = "bfloat16" if dtype == torch.bfloat16 else "float32"
    command = [sys.executable, "-c", CHILD, str(tiny), str(folder), precision]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def stored_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def main() -> int:
    results = []
    for family, dtype, shard in CASES:
        with tempfile.TemporaryDirectory() as name:
            tiny = generate(family, dtype, "50GB", Path(name) / "tiny", 1)
            folder = generate(family, dtype, shard, Path(name) / "folder", SIZE)
            num_files, stored = len(list(folder.glob("*.safetensors"))), stored_bytes(folder)
            ratio = peak(folder, tiny, dtype) / stored
        results.append({"family": family, "files": num_files, "bytes": stored, "peak": ratio})
        print(
            f"{family} {dtype} in {num_files} files: {stored / 1e9:.2f} GB, peak {ratio:.3f} of it"
        )
    print(json.dumps({"limit": LIMIT, "loads": results}))
    return 0 if all(result["peak"] < LIMIT for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
