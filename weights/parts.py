"""What a reader found, before the checks that are the same for all readers make it a Checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from weights.checkpoint import Checkpoint, CheckpointError, ModelConfig, Rounded, SpecialTokens
from weights.families.family import Family
from weights.source import Packed, Source, Tensors, check_shapes, stored_types
from weights.tie import settle_tie


@dataclass(frozen=True, slots=True)
class Parts:
    family: Family
    config: ModelConfig
    source: Source
    tokenizer: Tokenizer
    num_tokens: int  # every id the tokenizer can give is below it
    special: SpecialTokens
    chat_template: str | None
    says_tied: bool | None
    files: tuple[Path, ...]  # that hold tensors
    words: Mapping[str, Any]  # config.json, or what it would say
    precision: Rounded | None = None  # that `tiedlm quantize` was asked for


def assemble(parts: Parts, name: str, sha256: str) -> Checkpoint:
    needed = parts.family.shapes(parts.config)
    check_shapes(parts.source, parts.family, needed)
    _check_tokens(parts)
    names = tuple(needed)
    return Checkpoint(
        name=name,
        config=parts.config,
        tensors=Tensors(parts.source, names),
        packed=Packed(parts.source, names),
        stored_types=stored_types(parts.source, names),
        tokenizer=parts.tokenizer,
        special=parts.special,
        chat_template=parts.chat_template,
        tie=settle_tie(parts.source, parts.family, parts.says_tied),
        files=parts.files,
        sha256=sha256,
        words=parts.words,
        precision=parts.precision,
    )


def _check_tokens(parts: Parts) -> None:
    """Every id the tokenizer can give has a row in the embedding."""
    rows = parts.config.vocab_size
    if parts.num_tokens > rows:
        raise CheckpointError(
            f"The tokenizer has token {parts.num_tokens - 1}; the embedding has {rows} rows."
        )
    for id_ in parts.special.stop_ids:
        if id_ >= rows:
            raise CheckpointError(f"End token {id_} is not one of the {rows} tokens.")
