"""
A checkpoint folder written anew: under another name until it is whole.

What a process that was killed leaves behind is called `.NAME.*.partial`, and its weights do not
load.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from weights.checkpoint import Checkpoint, CheckpointError, Rounded
from weights.hf_tensors import SINGLE
from weights.packed_file import PackedFile
from weights.tying import tying_of


def check_target(target: Path) -> None:
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise CheckpointError(f"{target} exists and is no folder.")
    if target.is_dir() and any(target.iterdir()):
        raise CheckpointError(f"{target} exists and is not empty; nothing is overwritten.")


@contextmanager
def new_folder(checkpoint: Checkpoint, precision: Rounded, target: Path) -> Iterator[PackedFile]:
    """
    Everything but the tensors, which the caller adds; the folder appears when they are all there.
    Progress goes to standard error.

    CheckpointError: `target` is not free, or cannot be written.
    """
    partial = target.parent / f".{target.name}.{secrets.token_hex(4)}.partial"
    try:
        check_target(target)
        partial.mkdir(parents=True)
        _write_texts(checkpoint, partial)
        total = tying_of(checkpoint.config).parameters
        bar = tqdm(total=total, unit=" weights", unit_scale=True, desc=target.name)
        with bar, PackedFile(partial / SINGLE, precision, checkpoint.tensors, bar.update) as file:
            yield file
        os.rename(partial, target)  # only over nothing, or over an empty folder
    except OSError as error:  # a full disk, a folder that may not be written
        raise CheckpointError(f"{target}: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_texts(checkpoint: Checkpoint, folder: Path) -> None:
    special = checkpoint.special
    words = {
        **checkpoint.words,
        "tie_word_embeddings": True,
        "bos_token_id": special.bos_id,
        "eos_token_id": special.eos_id,
        "pad_token_id": special.pad_id,
    }
    _write_json(folder / "config.json", words)
    _write_json(folder / "generation_config.json", {"eos_token_id": list(special.stop_ids)})
    unk = None if special.unk_id is None else checkpoint.tokenizer.id_to_token(special.unk_id)
    _write_json(folder / "tokenizer_config.json", {} if unk is None else {"unk_token": unk})
    (folder / "tokenizer.json").write_text(checkpoint.tokenizer.to_str(), encoding="utf-8")
    if checkpoint.chat_template is not None:
        (folder / "chat_template.jinja").write_bytes(checkpoint.chat_template.encode())


def _write_json(path: Path, words: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(words, indent=2) + "\n", encoding="utf-8")
