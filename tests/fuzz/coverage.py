"""
`python -m tests.fuzz.coverage --seconds 120 [TARGET ...]`: atheris on each parser, one after
another, guided by which lines its inputs reach. A crash is kept under build/fuzz and fails the run.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["server", "weights", "h11"]):
    from tests.fuzz.parsers import TARGETS

from tests.fuzz.examples import examples

KEPT = Path("build/fuzz")


def fuzz(name: str, corpus: Path, seconds: int) -> None:
    """Ends the process."""
    flags = [f"-max_total_time={seconds}", "-max_len=65536", "-timeout=10", "-rss_limit_mb=4096"]
    flags += [f"-artifact_prefix={KEPT}/{name}-", "-print_final_stats=1", str(corpus)]
    atheris.Setup([name, *flags], TARGETS[name])
    atheris.Fuzz()


def in_its_own_process(name: str, corpus: Path, seconds: int) -> bool:
    corpus.mkdir()
    made = examples(Path(tempfile.mkdtemp(dir=corpus.parent)))
    for i, example in enumerate(made[name]):
        (corpus / str(i)).write_bytes(example)
    command = [sys.executable, "-m", "tests.fuzz.coverage", "--seconds", str(seconds)]
    ended = subprocess.run([*command, "--corpus", str(corpus), name], stderr=subprocess.PIPE)
    told = ended.stderr.decode(errors="replace").splitlines()
    runs = [line for line in told if "number_of_executed_units" in line or " cov: " in line]
    print(f"{name}: {'held' if ended.returncode == 0 else 'FAILED'}", *runs[-2:], sep="\n  ")
    if ended.returncode:
        print(*told[-40:], sep="\n")
    return ended.returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=120)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    arguments = parser.parse_args()
    names = arguments.targets or list(TARGETS)
    KEPT.mkdir(parents=True, exist_ok=True)
    if arguments.corpus:
        fuzz(names[0], arguments.corpus, arguments.seconds)
    with tempfile.TemporaryDirectory() as folder:
        held = [in_its_own_process(name, Path(folder) / name, arguments.seconds) for name in names]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
