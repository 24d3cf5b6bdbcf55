"""A Hugging Face folder (config.json, *.safetensors, tokenizer.json ...) -> Parts."""

from __future__ import annotations

from pathlib import Path

from weights.config import read_config
from weights.fields import Fields
from weights.hf_tensors import weight_files
from weights.hf_tokenizer import read_chat_template, read_special, read_tokenizer
from weights.json_file import read_object
from weights.packed_source import open_source
from weights.parts import Parts


def read_folder(folder: Path) -> Parts:
    raw = read_object(folder / "config.json")
    family, config = read_config(Fields(raw, "config.json"))
    files = weight_files(folder)
    needed = {**family.shapes(config), family.output: ()}
    source, precision = open_source(files, family, needed)
    tokenizer = read_tokenizer(folder)
    return Parts(
        family=family,
        config=config,
        source=source,
        tokenizer=tokenizer,
        num_tokens=max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1,
        special=read_special(folder, raw, tokenizer),
        chat_template=read_chat_template(folder),
        says_tied=Fields(raw, "config.json").flag_or_none("tie_word_embeddings"),
        files=files,
        words=raw,
        precision=precision,
    )
