"""The tokenizer part of a GGUF file's metadata: an entry for each token, ids that exist."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from gguf import TokenType
from tokenizers import AddedToken, Tokenizer

from weights.checkpoint import CheckpointError, SpecialTokens
from weights.ends import set_ends, stop_ids
from weights.fields import Fields, shown

PREFIX = "tokenizer.ggml."
ID_NAMES = ("bos", "eos", "eot", "eom", "padding", "unknown")
MAX_TOKEN_LENGTH = 1024  # characters; vocabularies stay under a hundred


@dataclass(frozen=True, slots=True)
class Vocabulary:
    tokens: list[str]
    kinds: np.ndarray[Any, np.dtype[np.int64]]  # gguf.TokenType of each
    scores: np.ndarray[Any, np.dtype[np.float32]] | None
    merges: list[str] | None  # "left right"
    special: SpecialTokens
    adds_eos: bool
    adds_space: bool | None  # a space before the text; None: the file leaves it to its kind

    def of_kind(self, kind: TokenType) -> list[int]:
        ids: list[int] = np.flatnonzero(self.kinds == kind).tolist()
        return ids


def read_vocabulary(metadata: Mapping[str, Any], adds_bos: bool) -> Vocabulary:
    """`adds_bos`: what this kind of tokenizer does where the file does not say."""
    own = {key.removeprefix(PREFIX): v for key, v in metadata.items() if key.startswith(PREFIX)}
    fields = Fields(own, "GGUF tokenizer")
    tokens = _strings(own, "tokens")
    if not tokens:
        raise CheckpointError("GGUF tokenizer: tokens is missing, so text cannot be tokenized.")
    _check_texts(tokens)
    kinds = _numbers(own, "token_type", len(tokens), np.int64)
    scores = _numbers(own, "scores", len(tokens), np.float32)
    if scores is not None and not np.isfinite(scores).all():
        raise CheckpointError("GGUF tokenizer: a score is NaN or infinite.")
    if kinds is None:
        kinds = np.full(len(tokens), int(TokenType.NORMAL))
    ids = {name: _id(own, f"{name}_token_id", len(tokens)) for name in ID_NAMES}
    special = SpecialTokens(
        bos_id=ids["bos"],
        eos_id=ids["eos"],
        pad_id=ids["padding"],
        unk_id=ids["unknown"],
        stop_ids=_stop_ids(ids, tokens, kinds),
        adds_bos=ids["bos"] is not None and fields.flag("add_bos_token", adds_bos),
    )
    return Vocabulary(
        tokens=tokens,
        kinds=kinds,
        scores=scores,
        merges=_strings(own, "merges"),
        special=special,
        adds_eos=ids["eos"] is not None and fields.flag("add_eos_token", False),
        adds_space=fields.flag_or_none("add_space_prefix"),
    )


def _stop_ids(
    ids: Mapping[str, int | None], tokens: list[str], kinds: np.ndarray[Any, Any]
) -> tuple[int, ...]:
    named = [id_ for name in ("eos", "eot", "eom") if (id_ := ids[name]) is not None]
    control = np.flatnonzero(kinds == TokenType.CONTROL).tolist()
    return stop_ids(named, {i: tokens[i] for i in control})


def _check_texts(tokens: list[str]) -> None:
    if len(set(tokens)) != len(tokens):
        twice = max(Counter(tokens).items(), key=lambda item: item[1])[0]
        raise CheckpointError(f"GGUF tokenizer: token {shown(twice)} is there twice.")
    longest = max(tokens, key=len)
    if len(longest) > MAX_TOKEN_LENGTH:
        raise CheckpointError(
            f"GGUF tokenizer: a token has {len(longest)} characters; at most {MAX_TOKEN_LENGTH}"
            " are read."
        )


def _strings(own: Mapping[str, Any], name: str) -> list[str] | None:
    value = own.get(name)
    if value is not None and not isinstance(value, list):
        raise CheckpointError(f"GGUF tokenizer: {name} must be an array of strings.")
    return value


def _numbers(
    own: Mapping[str, Any], name: str, count: int, kind: type[np.number[Any]]
) -> np.ndarray[Any, Any] | None:
    value = own.get(name)
    if value is None:
        return None
    if not isinstance(value, np.ndarray) or len(value) != count:
        raise CheckpointError(
            f"GGUF tokenizer: {name} must have a number for each of {count} tokens."
        )
    with np.errstate(all="ignore"):  # what does not fit becomes a number that the checks refuse
        return value.astype(kind)


def _id(own: Mapping[str, Any], name: str, count: int) -> int | None:
    value = own.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < count:
        raise CheckpointError(
            f"GGUF tokenizer: {name} is {shown(value)}; there are {count} tokens."
        )
    return value


def add_special_tokens(tokenizer: Tokenizer, vocabulary: Vocabulary) -> None:
    """Control tokens are special: text spells one only if asked. User-defined always match."""
    tokens = vocabulary.tokens
    control = [tokens[i] for i in vocabulary.of_kind(TokenType.CONTROL)]
    own = [tokens[i] for i in vocabulary.of_kind(TokenType.USER_DEFINED)]
    tokenizer.add_special_tokens(
        [AddedToken(t, special=True, normalized=False) for t in control if t]
    )
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in own if t])
    special = vocabulary.special
    if special.adds_bos or vocabulary.adds_eos:
        before = special.bos_id if special.adds_bos else None
        set_ends(tokenizer, before, special.eos_id if vocabulary.adds_eos else None)
