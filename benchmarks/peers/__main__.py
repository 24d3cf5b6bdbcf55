"""
This server beside llama.cpp's and OpenVINO GenAI, on one machine, the same prompts, alternating.

    python -m benchmarks.peers FOLDER     a folder that build.sh has filled

Figures drift by a factor of two within minutes on a shared machine, so every pair is measured back
to back and what is told are ratios: the median of them, the least and the greatest. The last line
is one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks.load import random_prompts
from benchmarks.peers.contenders import Contender, LlamaCpp, OpenVINO, Ours
from benchmarks.spread import spread

MODEL = "smollm2-135m-instruct"
STREAMS, CACHE_TOKENS = 16, 16_384
Measure = Callable[[Contender, int], float]  # of a seed -> more is better


def _decode(contender: Contender, seed: int) -> float:
    return contender.decode(random_prompts(1, 32, seed)[0], 128)


def _prefill(length: int) -> Measure:
    def measure(contender: Contender, seed: int) -> float:
        return length / contender.run(random_prompts(1, length, seed), 1)

    return measure


def _sixteen_streams(contender: Contender, seed: int) -> float:
    return STREAMS * 64 / contender.run(random_prompts(STREAMS, 128, seed), 64)


def _shared_prefix(contender: Contender, seed: int) -> float:
    prefix = random_prompts(1, 512, seed)[0]
    return 1 / contender.run([prefix + own for own in random_prompts(STREAMS, 16, seed)], 16)


def _distribution(contender: Contender, seed: int) -> float:
    prompt = random_prompts(1, 128, seed)[0]
    assert isinstance(contender, Ours | LlamaCpp)
    contender.distribution(prompt)
    return 1 / contender.distribution(prompt)


MEASURES: Mapping[str, Measure] = {
    "decode": _decode,
    "prefill_512": _prefill(512),
    "prefill_2048": _prefill(2048),
    "sixteen_streams": _sixteen_streams,
    "shared_prefix": _shared_prefix,
    "distribution": _distribution,
}


MANY = ("sixteen_streams", "shared_prefix")  # the others have a server with one slot, if they like


def compare(ours: Contender, theirs: Contender, names: Sequence[str], pairs: int) -> dict:
    """-> name of a measure: ours over theirs, and what the two were."""
    found = {}
    for name in names:
        if name == "distribution" and isinstance(theirs, OpenVINO):
            continue  # it has none to give
        measure = MEASURES[name]
        rows = []
        for pair in range(pairs + 1):
            sides = [ours, theirs] if pair % 2 else [theirs, ours]
            values = {side.name: measure(side, 1000 * pair + 7) for side in sides}
            rows.append((values[ours.name], values[theirs.name]))
        mine, other = zip(*rows[1:], strict=True)  # the first pair warms both up
        found[name] = {
            "ratio": spread([a / b for a, b in rows[1:]]),
            "ours": spread(mine),
            "theirs": spread(other),
        }
        print(f"{ours.name} over {theirs.name}, {name}: {found[name]}", file=sys.stderr)
    return found


def contenders(
    folder: Path, threads: int, slots: int
) -> Sequence[tuple[Contender, Sequence[Contender]]]:
    """Ours, and whom it is compared with. slots: sequences that llama.cpp divides its cache for."""

    def ours(precision: str, mlp_input_bits: int = 16) -> Ours:
        flags = ["--max-batch", str(STREAMS), "--kv-cache-tokens", str(CACHE_TOKENS)]
        flags += ["--speculation", "off", "--mlp-input-bits", str(mlp_input_bits)]
        name = f"tiedlm {precision}" + (", 8-bit MLP inputs" if mlp_input_bits == 8 else "")
        return Ours(name, MODEL, precision, threads, *flags)

    def llama(name: str) -> LlamaCpp:
        return LlamaCpp(name, folder / "llama/bin", folder / f"{name}.gguf", threads, slots)

    def openvino(name: str) -> OpenVINO:
        return OpenVINO(name, folder / "openvino/bin/python", folder / f"ov-{name}", threads)

    return [
        (ours("auto"), [llama("q4_1"), llama("q4_0"), llama("f32"), openvino("int8")]),
        (ours("auto", 8), [llama("q4_1"), llama("q4_0"), openvino("int8")]),
        (ours("float32"), [llama("f32"), openvino("float32")]),
    ]


def side_by_side(ours: Contender, theirs: Contender, names: Sequence[str], pairs: int) -> dict:
    with ExitStack() as running:
        for side in (ours, theirs):
            running.enter_context(side)
        table = compare(ours, theirs, names, pairs)
        for side, key in ((ours, "ours"), (theirs, "theirs")):
            table[f"ready_s_{key}"] = round(side.ready_seconds, 2)
            table[f"resident_mb_{key}"] = side.resident_bytes() >> 20
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=list(MEASURES), choices=list(MEASURES))
    parser.add_argument("--ours", nargs="*", help="names of ours, such as 'tiedlm auto'")
    parser.add_argument("--against", nargs="*", help="names of peers, such as 'llama.cpp q4_1'")
    options = parser.parse_args()
    result: dict[str, dict] = {}
    for slots in (1, STREAMS):
        names = [name for name in options.only if (name in MANY) == (slots > 1)]
        for ours, all_peers in contenders(options.folder, os.cpu_count() or 1, slots):
            if options.ours and ours.name not in options.ours:
                continue
            for theirs in all_peers:
                if names and (not options.against or theirs.name in options.against):
                    table = side_by_side(ours, theirs, names, options.pairs)
                    result.setdefault(f"{ours.name} over {theirs.name}", {}).update(table)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
