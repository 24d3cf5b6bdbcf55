"""
A GGUF vocabulary -> tokenizers.Tokenizer: byte-level BPE ("gpt2"), SentencePiece's BPE ("llama") or
its Unigram ("t5").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gguf import TokenType
from tokenizers import Tokenizer, decoders, models, normalizers

from weights.bpe_rules import RULES, words
from weights.checkpoint import CheckpointError, SpecialTokens
from weights.fields import Fields, shown
from weights.gguf_vocab import Vocabulary, add_special_tokens, read_vocabulary
from weights.spm_merges import best_first, merges_of
from weights.unigram import unigram

SPACE = "▁"  # how a SentencePiece vocabulary writes a space


@dataclass(frozen=True, slots=True)
class GgufTokenizer:
    tokenizer: Tokenizer
    num_tokens: int
    special: SpecialTokens
    chat_template: str | None


def read_gguf_tokenizer(metadata: Mapping[str, Any]) -> GgufTokenizer:
    fields = Fields(metadata, "GGUF metadata")
    builders = {"gpt2": _byte_level, "llama": _sentence_piece, "t5": _unigram}
    build = fields.choice("tokenizer.ggml.model", builders)
    tokenizer, vocabulary = build(metadata, fields)
    add_special_tokens(tokenizer, vocabulary)
    template = metadata.get("tokenizer.chat_template")
    if template is not None and not isinstance(template, str):
        raise CheckpointError(f"tokenizer.chat_template is {shown(template)}, not a text.")
    return GgufTokenizer(tokenizer, len(vocabulary.tokens), vocabulary.special, template)


def _byte_level(metadata: Mapping[str, Any], fields: Fields) -> tuple[Tokenizer, Vocabulary]:
    rule = fields.choice("tokenizer.ggml.pre", RULES, "default")
    vocabulary = read_vocabulary(metadata, rule.adds_bos)
    if vocabulary.merges is None:
        raise CheckpointError("GGUF tokenizer: merges is missing.")
    # The space that parts the two halves is never the first character: a half is not empty.
    pairs = [(left, right) for left, _, right in (m.partition(" ") for m in vocabulary.merges)]
    model = _bpe(vocabulary, pairs, ignore_merges=rule.ignores_merges)
    tokenizer = Tokenizer(model)
    if rule.composes:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = words(rule)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer, vocabulary


def _sentence_piece(metadata: Mapping[str, Any], _: Fields) -> tuple[Tokenizer, Vocabulary]:
    vocabulary = read_vocabulary(metadata, adds_bos=True)
    if vocabulary.scores is None:
        raise CheckpointError("GGUF tokenizer: scores is missing.")
    ids = vocabulary.of_kind(TokenType.NORMAL)
    pieces = [vocabulary.tokens[i] for i in ids]
    merges = merges_of(best_first(pieces, vocabulary.scores[ids].tolist()))
    unknown = vocabulary.special.unk_id
    model = _bpe(
        vocabulary,
        merges,
        byte_fallback=True,
        unk_token=None if unknown is None else vocabulary.tokens[unknown],
    )
    tokenizer = Tokenizer(model)
    adds_space = vocabulary.adds_space is not False
    spaces = [normalizers.Replace(" ", SPACE)]
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend(SPACE), *spaces] if adds_space else spaces
    )
    parts = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence(
        [*parts, decoders.Strip(" ", 1, 0)] if adds_space else parts
    )
    return tokenizer, vocabulary


def _unigram(metadata: Mapping[str, Any], _: Fields) -> tuple[Tokenizer, Vocabulary]:
    vocabulary = read_vocabulary(metadata, adds_bos=False)
    return unigram(metadata, vocabulary), vocabulary


def _bpe(
    vocabulary: Vocabulary,
    merges: list[tuple[str, str]],
    *,
    ignore_merges: bool = False,
    byte_fallback: bool = False,
    unk_token: str | None = None,
) -> models.BPE:
    ids = {text: id_ for id_, text in enumerate(vocabulary.tokens)}
    try:
        return models.BPE(
            ids,
            merges,
            ignore_merges=ignore_merges,
            byte_fallback=byte_fallback,
            fuse_unk=byte_fallback,
            unk_token=unk_token,
        )
    # The library's own errors are plain Exception: a merge whose half or whole is not a token.
    except Exception as error:  # noqa: BLE001
        raise CheckpointError(f"GGUF tokenizer: {str(error)[:200]}") from None
