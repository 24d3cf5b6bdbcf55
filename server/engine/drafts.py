"""
Guesses at what a sequence says next, from its own text: what followed its last tokens when they
stood there before (prompt lookup). The model runs the guesses beside the token drawn last and draws
after each; those that it draws too cost no step of their own, and nothing else changes.

Pure: what is guessed depends on the tokens and on which guesses were right before.
"""

from __future__ import annotations

from collections.abc import Sequence

GRAM = 3  # tokens that must have stood there before: after fewer, guesses are most often wrong
FIRST, MOST = 2, 7  # guesses at once: at first, and where all were right
MAX_PATIENCE = 64  # tokens without a guess, after guesses that were wrong again and again

# Tokens a step may run that only decodes: up to about as many read the weights once for all of
# them, so that a guess costs little beside what reading them does.
STEP_TOKENS = 8


def max_drafts(num_decoding: int, max_batch_tokens: int) -> int:
    """Of each row, where so many decode and a step has so many tokens for them."""
    return max(0, min(MOST, min(STEP_TOKENS, max_batch_tokens) // max(1, num_decoding) - 1))


class Drafts:
    """
    One sequence's. Tokens "a b c d a b c": "a b c" stood at 0, so "d" is guessed, and after it "a
    b c d ..." as far as guesses are wanted: a text in a loop is guessed to stay in it.
    """

    __slots__ = ("_behind", "_num_known", "_num_wrong", "_resume", "_size")

    def __init__(self) -> None:
        self._behind: dict[tuple[int, ...], int] = {}  # tokens -> where the newest of them end
        self._num_known = GRAM  # places up to here are in it
        self._size = FIRST
        self._num_wrong = 0  # times in turn that not even the first guess was right
        self._resume = 0  # length of the sequence from which on to guess again

    def guess(self, tokens: Sequence[int], limit: int) -> list[int]:
        """At most `limit`. The sequence may only have grown since."""
        if len(tokens) < self._resume or limit <= 0:
            return []
        for end in range(self._num_known, len(tokens)):
            self._behind[tuple(tokens[end - GRAM : end])] = end
        self._num_known = max(self._num_known, len(tokens))
        place = self._behind.get(tuple(tokens[-GRAM:]))
        if place is None:
            return []
        period = len(tokens) - place
        return [tokens[place + i % period] for i in range(min(self._size, limit))]

    def learn(self, num_tokens: int, num_guessed: int, num_right: int) -> None:
        """`num_tokens`: of the sequence, with those that were right."""
        if num_right == num_guessed:
            self._size = min(MOST, 2 * self._size)
        elif num_right:
            self._size = max(FIRST, num_right)
        if num_right:
            self._num_wrong = 0
            return
        self._num_wrong += 1
        self._size = FIRST
        self._resume = num_tokens + min(MAX_PATIENCE, 2**self._num_wrong)
