"""
SentencePiece's Unigram vocabularies (Kudo 2018), GGUF's "t5" kind -> tokenizers.Tokenizer.

Of all ways to cut a text into pieces the one with the highest sum of scores is taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gguf import TokenType
from tokenizers import Regex, Tokenizer, decoders, models, normalizers

from weights.checkpoint import CheckpointError
from weights.gguf_vocab import PREFIX, Vocabulary

SPACE = "▁"
MAX_CHARSMAP_BYTES = 16 << 20  # SentencePiece's own largest has 250 KB


def unigram(metadata: Mapping[str, Any], vocabulary: Vocabulary) -> Tokenizer:
    if vocabulary.scores is None:
        raise CheckpointError("GGUF tokenizer: scores is missing.")
    if vocabulary.special.unk_id is None:
        raise CheckpointError("GGUF tokenizer: unknown_token_id is missing.")
    # Pieces that text can become compete by score; the others must never win.
    usable = (TokenType.NORMAL, TokenType.USER_DEFINED, TokenType.UNUSED)
    never = float(vocabulary.scores.min()) - 100.0
    scores = np.where(np.isin(vocabulary.kinds, usable), vocabulary.scores, never).tolist()
    tokenizer = Tokenizer(
        models.Unigram(
            list(zip(vocabulary.tokens, scores, strict=True)),
            unk_id=vocabulary.special.unk_id,
            byte_fallback=bool(vocabulary.of_kind(TokenType.BYTE)),
        )
    )
    adds_space = vocabulary.adds_space is not False
    spaces: list[normalizers.Normalizer] = [normalizers.Replace(" ", SPACE)]
    if adds_space:
        spaces.insert(0, normalizers.Prepend(SPACE))
    tokenizer.normalizer = normalizers.Sequence([*_normalizers(metadata), *spaces])
    parts = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence(
        [*parts, decoders.Strip(" ", 1, 0)] if adds_space else parts
    )
    return tokenizer


def _normalizers(metadata: Mapping[str, Any]) -> list[normalizers.Normalizer]:
    found: list[normalizers.Normalizer] = []
    charsmap = metadata.get(f"{PREFIX}precompiled_charsmap")
    if charsmap is not None:
        found.append(_precompiled(charsmap))
    if metadata.get(f"{PREFIX}remove_extra_whitespaces", False):
        found += [
            normalizers.Replace(Regex(" {2,}"), " "),
            normalizers.Replace(Regex("^ | $"), ""),
        ]
    return found


def _precompiled(charsmap: object) -> normalizers.Normalizer:
    if not isinstance(charsmap, np.ndarray) or len(charsmap) > MAX_CHARSMAP_BYTES:
        raise CheckpointError("GGUF tokenizer: precompiled_charsmap must be an array of bytes.")
    try:
        return normalizers.Precompiled(charsmap.astype(np.uint8).tobytes())
    except BaseException as error:
        # The library parses it with assertions, whose PanicException is no Exception.
        if isinstance(error, (KeyboardInterrupt, SystemExit, MemoryError)):
            raise
        raise CheckpointError("GGUF tokenizer: precompiled_charsmap cannot be read.") from None
