"""
Merges of a SentencePiece vocabulary, which stores only pieces and scores.

SentencePiece joins, again and again, the two neighbours whose union is the piece of the highest
score. So every way of cutting a piece in two pieces is a merge, and merges rank by the score of
what they make.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Merge = tuple[str, str]


def merges_of(pieces: Iterable[str]) -> list[Merge]:
    """
    `pieces`: those that text can become, best first.

    Of "a", "b", "c", "bc", "ab", "abc" in this order: (b,c), (a,b), then both (a,bc) and (ab,c).
    """
    ranked = list(pieces)
    known = set(ranked)
    return [
        (left, right)
        for piece in ranked
        for cut in range(1, len(piece))
        if (left := piece[:cut]) in known and (right := piece[cut:]) in known
    ]


def best_first(pieces: Sequence[str], scores: Sequence[float]) -> list[str]:
    """Ties in the order of the vocabulary."""
    order = sorted(range(len(pieces)), key=lambda i: -scores[i])
    return [pieces[i] for i in order]
