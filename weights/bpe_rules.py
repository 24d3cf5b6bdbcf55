"""
How byte-level BPE vocabularies cut text into words before merging, by the name a GGUF file gives
the rule.

Each rule is the pre_tokenizer of the model's own tokenizer.json. Names as llama.cpp's converter
writes them.
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
DIGIT, DIGITS, THREE_DIGITS = r"\p{N}", r"\p{N}+", r"[0-9][0-9][0-9]"


@dataclass(frozen=True, slots=True)
class Rule:
    patterns: tuple[str, ...]  # each splits what the one before it left
    ignores_merges: bool = False  # a word that is a token is that token, whatever the merges say
    adds_bos: bool = False  # where the file does not say


RULES: Mapping[str, Rule] = {
    **dict.fromkeys(("gpt-2", "phi-2", "mpt", "olmo", "jais", "exaone4"), Rule((GPT2,))),
    **dict.fromkeys(("mellum", "modern-bert", "trillion", "granite-docling"), Rule((GPT2,))),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r"), Rule((DIGIT, GPT2))),
    **dict.fromkeys(("codeshell", "exaone", "minerva-7b"), Rule((DIGIT, GPT2))),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3"), Rule((LLAMA3,), True, True)),
    **dict.fromkeys(("falcon3", "falcon-h1", "lfm2"), Rule((LLAMA3,), True, True)),
    **dict.fromkeys(("dbrx", "smaug-bpe", "chatglm-bpe"), Rule((LLAMA3,))),
    **dict.fromkeys(("glm4",), Rule((LLAMA3,), ignores_merges=True)),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "stablelm2", "megrez"), Rule((QWEN2,))),
    "falcon": Rule((r"[\p{P}\$\+<=>\^~\|`]+", GPT2, THREE_DIGITS)),
    "default": Rule((r"[\p{P}\$\+<=>\^~\|]+", GPT2, DIGITS, THREE_DIGITS)),
}


def words(rule: Rule) -> PreTokenizer:
    splits = [Split(Regex(pattern), "isolated") for pattern in rule.patterns]
    return Sequence([*splits, ByteLevel(add_prefix_space=False, use_regex=False)])
