"""
Words of a text, and how surprising each is as a word and not as its tokens.

Where a token carries the white space before its word, the word's tokens do not say that the word is
over: the mass of what can follow it and begin another belongs to it, and its own beginning was said
by the word before. So, with w the word's tokens and B the probability that the next token ends a
word,

    surprisal(word) = sum of surprisal(tokens) - log B(after w) + log B(before w)

(Pimentel and Meister 2024, "How to Compute the Probability of a Word", theorem 2; Oh and Schuler
2024, "Leading Whitespaces of Language Models' Subword Vocabulary Pose a Confound"). A word that
begins with no white space, as a text's first, was not begun by the word before it: its last term is
0. Of all words of a text the terms cancel but for the first's and the last's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from model.step import Score
from server.api.encode import finite
from server.text.tokenizer import Piece, TextTokenizer


@dataclass(frozen=True, slots=True)
class Told:
    """One token of a text. All None where nothing came before it."""

    piece: Piece
    score: Score | None = None
    entropy: float | None = None  # nats
    mass: float | None = None  # log-probability that a word ended before this token, where asked


@dataclass(frozen=True, slots=True)
class Word:
    first: int  # of the text's tokens
    last: int  # one behind its last
    start: int  # characters, without the white space around it
    end: int


def find_words(text: str, pieces: Sequence[Piece], tokenizer: TextTokenizer) -> list[Word]:
    """What stands between white space, as far as tokens allow; a special token is by itself."""
    words, first = [], 0
    for i in range(1, len(pieces) + 1):
        is_cut = i == len(pieces) or tokenizer.ends_word(pieces[i].token)
        is_cut = is_cut or pieces[i - 1].token in tokenizer.special_ids
        start, end = pieces[first].start, max(pieces[i - 1].end, pieces[first].start)
        own = text[start:end]
        if is_cut and own.strip():  # white space alone waits for what follows it
            start += len(own) - len(own.lstrip())
            words.append(Word(first, i, start, start + len(own.strip())))
            first = i
    return words


def word_nats(
    word: Word, tokens: Sequence[Told], mass_at_end: float | None, tokenizer: TextTokenizer
) -> tuple[float | None, float | None]:
    """
    (corrected, sum of its tokens). None where a token has no surprisal, or what follows no mass.
    """
    own = tokens[word.first : word.last]
    plain = sum_nats(own)
    after = tokens[word.last].mass if word.last < len(tokens) else mass_at_end
    if plain is None or after is None:
        return None, plain
    before = own[0].mass if tokenizer.ends_word(own[0].piece.token) else 0.0
    return None if before is None else plain - finite(after) + finite(before), plain


def sum_nats(tokens: Sequence[Told]) -> float | None:
    scores = [told.score for told in tokens]
    if any(score is None for score in scores):
        return None
    return 0.0 - math.fsum(finite(score.logprob) for score in scores if score is not None)
