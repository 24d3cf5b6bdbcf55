"""
How byte-level BPE vocabularies cut text into words before merging, by the name a GGUF file gives
the rule.

Each rule is the pre_tokenizer, and the normalizer, of the model's own tokenizer.json. Names as
llama.cpp's converter writes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tokenizers import Regex
from tokenizers.pre_tokenizers import ByteLevel, PreTokenizer, Sequence, Split

CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
LETTERS, TAIL = r"[^\r\n\p{L}\p{N}]?\p{L}+", r"\s*[\r\n]+|\s+(?!\S)|\s+"
SYMBOLS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = rf"{CONTRACTIONS}|{LETTERS}|\p{{N}}{{1,3}}|{SYMBOLS}|{TAIL}"
QWEN2 = rf"{CONTRACTIONS}|{LETTERS}|\p{{N}}|{SYMBOLS}|{TAIL}"
# BLOOM's own, misspelt brackets and all: it is what the model was trained with.
BLOOM = r" ?[^(\s|[.,!?…。，、।۔،])]+"  # noqa: RUF001
# Words of GPT-4o begin with capitals and go on with small letters: "camelCase" is two.
CAPITALS, SMALL = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
GPT4O = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{CAPITALS}*{SMALL}+{CONTRACTIONS}?"
    rf"|[^\r\n\p{{L}}\p{{N}}]?{CAPITALS}+{SMALL}*{CONTRACTIONS}?"
    rf"|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{TAIL}"
)
DIGIT, DIGITS, THREE_DIGITS = r"\p{N}", r"\p{N}+", r"[0-9][0-9][0-9]"


@dataclass(frozen=True, slots=True)
class Rule:
    patterns: tuple[str, ...]  # each splits what the one before it left
    ignores_merges: bool = False  # a word that is a token is that token, whatever the merges say
    adds_bos: bool = False  # where the file does not say
    composes: bool = False  # Unicode's form C first, which llama.cpp leaves out
    # Splits what the text has become: a character a byte. The second byte of "½" is then a number
    # by itself, and a space before digits is left alone. llama.cpp splits the text instead.
    byte_patterns: tuple[str, ...] = ()


RULES: Mapping[str, Rule] = {
    **dict.fromkeys(("gpt-2", "phi-2", "jais", "exaone4"), Rule((GPT2,))),
    **dict.fromkeys(("mpt", "olmo"), Rule((GPT2,), composes=True)),
    **dict.fromkeys(("mellum", "modern-bert", "trillion", "granite-docling"), Rule((GPT2,))),
    **dict.fromkeys(("smollm", "starcoder", "refact"), Rule((DIGIT, GPT2))),
    "command-r": Rule((DIGIT, GPT2), composes=True),
    **dict.fromkeys(("codeshell", "exaone", "minerva-7b"), Rule((DIGIT, GPT2))),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3"), Rule((LLAMA3,), True, True)),
    **dict.fromkeys(("falcon3", "falcon-h1", "lfm2"), Rule((LLAMA3,), True, True)),
    **dict.fromkeys(("dbrx", "smaug-bpe", "chatglm-bpe"), Rule((LLAMA3,))),
    **dict.fromkeys(("glm4",), Rule((LLAMA3,), ignores_merges=True)),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen"), Rule((QWEN2,), composes=True)),
    **dict.fromkeys(("stablelm2", "megrez"), Rule((QWEN2,))),
    **dict.fromkeys(("bloom", "gpt3-finnish", "poro-chat"), Rule((BLOOM,))),
    **dict.fromkeys(("gpt-4o", "llama4"), Rule((GPT4O,))),
    "falcon": Rule((r"[\p{P}\$\+<=>\^~\|`]+", GPT2), byte_patterns=(DIGITS, THREE_DIGITS)),
    "default": Rule((r"[\p{P}\$\+<=>\^~\|]+", GPT2, DIGITS, THREE_DIGITS)),
}


def words(rule: Rule) -> PreTokenizer:
    before, after = (
        [Split(Regex(pattern), "isolated") for pattern in patterns]
        for patterns in (rule.patterns, rule.byte_patterns)
    )
    return Sequence([*before, ByteLevel(add_prefix_space=False, use_regex=False), *after])
