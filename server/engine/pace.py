"""
How much of a long prompt to run beside decoding rows, so that a step lasts no more than twice a
step that only decodes.

It learns from the steps' durations. A prompt that fits one step is not paced: it delays the others
once.
"""

from __future__ import annotations

# Of the time of a step that only decodes; the rest is for what the estimate misses.
SHARE = 0.8
# Weight of the newest observation; batches change within tens of steps.
NEWEST = 0.25


class Pace:
    def __init__(self, min_tokens: int) -> None:
        self._min_tokens = (
            min_tokens  # a long prompt goes on at least so fast, whatever was measured
        )
        self._decode_seconds: float | None = None  # of a step that only decodes
        self._token_seconds: float | None = None  # what a prompt token adds to a step

    def max_long_tokens(self) -> int | None:
        """None: not known yet."""
        if not self._decode_seconds or not self._token_seconds:
            return None
        return max(self._min_tokens, int(SHARE * self._decode_seconds / self._token_seconds))

    def observe(self, num_decoding: int, num_prompt_tokens: int, seconds: float) -> None:
        if not num_prompt_tokens:
            self._decode_seconds = _blend(self._decode_seconds, seconds)
            return
        decoding = (self._decode_seconds or 0.0) if num_decoding else 0.0
        added = max(0.0, seconds - decoding) / num_prompt_tokens
        self._token_seconds = _blend(self._token_seconds, added)


def _blend(old: float | None, new: float) -> float:
    return new if old is None else old + NEWEST * (new - old)
