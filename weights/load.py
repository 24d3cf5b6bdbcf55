"""A path -> Checkpoint: look at what is there, and pick the reader."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from weights.checkpoint import Checkpoint, CheckpointError
from weights.gguf import read_gguf
from weights.hf_dir import read_folder
from weights.hf_tensors import weight_files
from weights.parts import assemble


def load(source: Path, name: str | None = None) -> Checkpoint:
    """
    Whatever is wrong with `source` is a CheckpointError of one readable line; tensors are read
    later, at access.

    `name`: what the model is called; a hub id's folder does not tell. Else the file's or folder's
    own name.
    """
    if not source.exists():
        raise CheckpointError(f"{source} does not exist.")
    if not source.is_dir() and source.suffix != ".gguf":
        raise CheckpointError(f"{source} is neither a folder nor a .gguf file.")
    try:
        files = weight_files(source) if source.is_dir() else (source,)
        # Hashing reads the disk and leaves the interpreter free: by the time the tokenizer is built
        # it is done.
        with ThreadPoolExecutor(1) as background:
            digest = background.submit(sha256_of, files)
            parts = read_folder(source) if source.is_dir() else read_gguf(source)
            return assemble(parts, name or _own_name(source), digest.result())
    except CheckpointError as error:
        raise type(error)(f"{source}: {error}") from error
    except OSError as error:
        raise CheckpointError(f"{source}: {error.strerror or error}.") from error


def _own_name(source: Path) -> str:
    path = source.resolve()
    return path.name if path.is_dir() else path.stem


def sha256_of(files: tuple[Path, ...]) -> str:
    """Of the one file; of the lines "digest  name" where there are several."""
    digests = [_digest(path) for path in files]
    if len(digests) == 1:
        return digests[0]
    pairs = zip(digests, files, strict=True)
    lines = "".join(f"{digest}  {path.name}\n" for digest, path in pairs)
    return hashlib.sha256(lines.encode()).hexdigest()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
