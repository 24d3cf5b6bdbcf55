"""
What each precision costs: how far its next-token distributions are from float32's.

Mean Kullback-Leibler divergence KL(float32 || precision) and top-1 agreement over 20,000 tokens of
benchmarks/text.py, beside llama.cpp's own Q4_0 of the same weights where its llama-quantize is
given. Writes the table of docs/performance.md, prints one line of JSON last, and fails where a
bound is missed.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.text import SHARES, texts
from model.kv_pool import PAGE_SIZE, KVPool
from model.paged import PagedMemory, plan
from model.precision import Precision
from model.runner import Runner, build_runner, build_transformer
from model.step import Row
from weights.catalog import CATALOG, resolve
from weights.checkpoint import Checkpoint
from weights.load import load

WINDOW = 1000  # tokens that see one another
CHUNK_VALUES = 1 << 23  # of a distribution at a time: 32 MB of float32
COARSE = "auto, 8-bit MLP inputs"
BOUNDS = {"auto": 0.003, COARSE: 0.003, "int8": 0.002, "int4": 0.06}  # nats
PRECISIONS: tuple[Precision, ...] = ("float32", "auto", "bfloat16", "int8", "int4")
PEER = "llama.cpp's Q4_0"
PAGE = Path(__file__).parents[1] / "docs" / "performance.md"


@dataclass(slots=True)
class Quality:
    """Sums over all predictions; divided when asked."""

    divergence: float = 0.0  # nats
    largest: float = 0.0
    agreed: int = 0
    surprisal: float = 0.0  # of what really follows
    count: int = 0

    def add(self, reference: Tensor, logprobs: Tensor, following: Tensor) -> None:
        """reference and logprobs (N,V), following (N,)."""
        each = (reference.exp() * (reference - logprobs)).sum(-1, dtype=torch.float64)
        self.divergence += float(each.sum())
        self.largest = max(self.largest, float(each.max()))
        self.agreed += int((reference.argmax(-1) == logprobs.argmax(-1)).sum())
        self.surprisal -= float(logprobs.gather(1, following[:, None]).sum(dtype=torch.float64))
        self.count += len(following)

    def means(self) -> dict[str, float]:
        return {
            "kl": self.divergence / self.count,
            "largest_kl": self.largest,
            "top1": self.agreed / self.count,
            "perplexity": math.exp(self.surprisal / self.count),
            "tokens": self.count,
        }


def windows(checkpoint: Checkpoint, num_tokens: int, width: int = WINDOW) -> list[list[int]]:
    """Of width + 1 tokens: each but the last is predicted from, each but the first predicted."""
    found = []
    for name, text in texts().items():
        ids = checkpoint.tokenizer.encode(text, add_special_tokens=False).ids
        for start in range(0, round(num_tokens * SHARES[name]), width):
            window = ids[start : start + width + 1]
            assert len(window) == width + 1
            bos = checkpoint.special.bos_id
            is_led = checkpoint.special.adds_bos and bos is not None
            found.append([bos, *window[:-1]] if is_led else window)
    return found


def hidden_states(runner: Runner, tokens: Sequence[int]) -> Tensor:
    """As a prompt is run: through the paged cache, in one step."""
    pages = range(-(-len(tokens) // runner.page_size))
    batch = plan([Row(tokens, 0, pages)], runner.page_size)
    memory = PagedMemory(runner.pool, batch, runner.transformer.kernels)
    return runner.transformer.forward(batch.tokens, batch.positions, memory)


@torch.inference_mode()
def compare(runners: Mapping[str, Runner], texts: list[list[int]]) -> dict[str, Quality]:
    """The first of `runners` is the reference. Only a chunk of distributions ever exists."""
    reference, *others = runners.values()
    found = {name: Quality() for name in list(runners)[1:]}
    rows = max(1, CHUNK_VALUES // reference.vocab_size)
    for window in tqdm(texts, desc="windows"):
        states = [hidden_states(runner, window[:-1]) for runner in runners.values()]
        following = torch.tensor(window[1:])
        for first in range(0, len(following), rows):
            part = slice(first, first + rows)
            expected = logprobs(reference, states[0][part])
            for quality, runner, hidden in zip(found.values(), others, states[1:], strict=True):
                quality.add(expected, logprobs(runner, hidden[part]), following[part])
    return found


def logprobs(runner: Runner, hidden: Tensor) -> Tensor:
    transformer = runner.transformer
    return transformer.kernels.log_softmax(transformer.embedding.logits(hidden))


def peers_file(quantizer: Path, source: Path, folder: Path) -> Path:
    """The same weights, as llama.cpp rounds them: from float32, which dequantising gives."""
    exact, rounded = folder / "F32.gguf", folder / "Q4_0.gguf"
    for command in (
        [quantizer, "--allow-requantize", source, exact, "F32"],
        [quantizer, exact, rounded, "Q4_0"],
    ):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    exact.unlink()
    return rounded


def measure(
    name: str, num_tokens: int, width: int, quantizer: Path | None
) -> dict[str, dict[str, float]]:
    path = resolve(name)
    checkpoint = load(path)
    num_pages = -(-width // PAGE_SIZE)
    runners: dict[str, Runner] = {
        precision: build_runner(checkpoint, precision=precision, num_pages=num_pages)
        for precision in PRECISIONS
    }
    coarse = build_transformer(checkpoint, "auto", mlp_input_bits=8)
    runners[COARSE] = Runner(coarse, KVPool(checkpoint.config, num_pages))
    sizes = {precision: num_bytes(runner) for precision, runner in runners.items()}
    with tempfile.TemporaryDirectory() as folder:
        if quantizer is not None:
            file = peers_file(quantizer, path, Path(folder))
            runners[PEER] = build_runner(load(file), precision="float32", num_pages=num_pages)
            sizes[PEER] = file.stat().st_size
    found = compare(runners, windows(checkpoint, num_tokens, width))
    return {
        precision: {**quality.means(), "bytes": sizes[precision]}
        for precision, quality in found.items()
    }


def num_bytes(runner: Runner) -> int:
    return sum(runner.transformer.storages().values())


def missed(measured: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    for precision, bound in BOUNDS.items():
        if measured[precision]["kl"] > bound:
            yield f"{precision}: {measured[precision]['kl']:.5f} nat, at most {bound}"
    if PEER in measured and measured["int4"]["kl"] > measured[PEER]["kl"]:
        yield f"int4: {measured['int4']['kl']:.5f} nat, {PEER} has {measured[PEER]['kl']:.5f}"


def table(results: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    lines = [
        "| model | tokens | precision | mean KL, nat | largest | top-1 | perplexity | weights |",
        "|---|---:|---|---:|---:|---:|---:|---:|",
    ]
    for name, measured in results.items():
        lines += [
            f"| {name} | {q['tokens']:,} | {precision} | {q['kl']:.5f} | {q['largest_kl']:.3f} |"
            f" {q['top1']:.2%} | {q['perplexity']:.3f} | {q['bytes'] / 1e6:.0f} MB |"
            for precision, q in measured.items()
        ]
    return "\n".join(lines)


def write(page: Path, lines: str) -> None:
    begin, end = "<!-- quality, by `make quality` -->", "<!-- end of quality -->"
    text, count = re.subn(
        f"{begin}.*?{end}", lambda _: f"{begin}\n{lines}\n{end}", page.read_text(), flags=re.S
    )
    assert count == 1
    page.write_text(text)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="*", default=list(CATALOG))
    parser.add_argument("--tokens", type=int, default=20_000)
    parser.add_argument("--window", type=int, default=WINDOW)
    parser.add_argument("--llama-quantize", type=Path, help="llama.cpp's program")
    parser.add_argument("--write", action="store_true", help="the table of docs/performance.md")
    arguments = parser.parse_args()
    results = {
        name: measure(name, arguments.tokens, arguments.window, arguments.llama_quantize)
        for name in arguments.models
    }
    print(table(results))
    faults = [f"{name}, {fault}" for name, found in results.items() for fault in missed(found)]
    for fault in faults:
        print(f"missed: {fault}")
    if arguments.write:
        write(PAGE, table(results))
    print(json.dumps({"benchmark": "quality", "tokens": arguments.tokens, **results}))
    return len(faults) > 0


if __name__ == "__main__":
    sys.exit(main())
