"""
How much of a long prompt to run beside decoding rows, so that a step lasts no more than twice a
step that only decodes.

It learns from the steps' durations alone: what a token of a prompt costs depends on its place, on
how many share the step, and on who else uses the machine. A prompt that fits one step is not
paced: it delays the others once.
"""

from __future__ import annotations

from math import inf

# What a chunk may add to a step, of the time of a step that only decodes. The rest, up to 1, is for
# what no estimate foresees.
SHARE = 0.7
START = 16  # tokens of the first chunk, when nothing is known: it must not be too long either
# Of the chunk's size from step to step: what is too long is mended at once, what is too short in a
# few steps.
MOST_GROWTH, MOST_LOSS = 1.25, 0.4
# Weight of the newest decoding step; batches change within tens of steps.
NEWEST = 0.25


class Pace:
    def __init__(self, min_tokens: int) -> None:
        self._min_tokens = (
            min_tokens  # a long prompt goes on at least so fast, whatever was measured
        )
        self._tokens = float(max(START, min_tokens))
        self._decode_seconds = 0.0  # of a step that only decodes; 0: not known yet
        self._is_measured = False  # else it is guessed from a step with a chunk

    def max_long_tokens(self) -> int:
        return max(self._min_tokens, int(self._tokens))

    def observe(self, num_decoding: int, num_prompt_tokens: int, seconds: float) -> None:
        if not num_decoding:
            return
        decode = self._decode_seconds
        if not num_prompt_tokens:
            weight = NEWEST if self._is_measured else 1.0
            self._decode_seconds, self._is_measured = decode + weight * (seconds - decode), True
        elif not decode:
            self._decode_seconds = seconds / (1 + SHARE)
        elif 2 * num_prompt_tokens >= self._tokens:  # less says too little
            self._learn(num_prompt_tokens, seconds / decode - 1)

    def _learn(self, num_tokens: int, added: float) -> None:
        """They added this share of a decoding step."""
        wanted = num_tokens * SHARE / added if added > 0 else inf
        change = wanted / self._tokens
        self._tokens = min(2.0**20, self._tokens * min(MOST_GROWTH, max(MOST_LOSS, change)))
