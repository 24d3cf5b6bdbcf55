"""
Stop strings in text that arrives in parts: found wherever they fall, and nothing of one ever given
out.

The string that is completed first stops the text; of several completed by the same character, the
longest. So the answer does not depend on how the text was split. Text is held back only while it
may still become a stop string: with the stop "\\n\\nQ", of "a\\n" the "a" is given out, and the
"\\n" when an "x" follows.
"""

from __future__ import annotations

from collections.abc import Sequence


class Prefix:
    """
    How much of one stop string the text ends with: the automaton of Knuth, Morris and Pratt (1977).
    """

    def __init__(self, stop: str) -> None:
        self.stop, self.matched = stop, 0
        self._fallback = fallbacks(stop)

    def push(self, character: str) -> bool:
        """True when the string has just been completed."""
        if self.matched == len(self.stop):
            self.matched = self._fallback[-1]
        while self.matched and self.stop[self.matched] != character:
            self.matched = self._fallback[self.matched - 1]
        self.matched += self.stop[self.matched] == character
        return self.matched == len(self.stop)

    @property
    def pending(self) -> int:
        """Characters at the end of the text that may yet become the whole string."""
        return self._fallback[-1] if self.matched == len(self.stop) else self.matched


def fallbacks(stop: str) -> list[int]:
    """For each prefix of `stop`, the length of its longest proper prefix that also ends it.

    "aaba" -> [0, 1, 0, 1].
    """
    lengths, matched = [0], 0
    for character in stop[1:]:
        while matched and stop[matched] != character:
            matched = lengths[matched - 1]
        matched += stop[matched] == character
        lengths.append(matched)
    return lengths


class StopFinder:
    def __init__(self, stops: Sequence[str], is_included: bool) -> None:
        """`is_included`: the stop string itself is part of the text given out."""
        self._prefixes = [Prefix(stop) for stop in stops]
        self._is_included, self._held = is_included, ""

    def push(self, text: str, is_armed: bool) -> tuple[str, str | None]:
        """Text that may be given out now, and the stop string that ended it.

        While not armed nothing stops: a string completed then is ordinary text for ever.
        """
        if not self._prefixes:
            return text, None
        seen = len(self._held)
        self._held += text
        for end, character in enumerate(text, seen + 1):
            completed = [p.stop for p in self._prefixes if p.push(character)]
            if completed and is_armed:
                stop = max(completed, key=len)
                return self._held[: end if self._is_included else end - len(stop)], stop
        return self._release(max(p.pending for p in self._prefixes)), None

    def finish(self) -> str:
        return self._release(0)

    def _release(self, kept: int) -> str:
        at = len(self._held) - kept
        released, self._held = self._held[:at], self._held[at:]
        return released
