"""
How much of a long prompt to run beside decoding rows, so that a step lasts no more than twice what
it would last without: then no row waits more than twice as long for a token, whether it draws one a
step or several, for its drafts (drafts.py) are the same beside a prompt.

Both are learned from the steps' durations alone. A step that only decodes is what its rows take and
a part a draft. What a chunk adds is a part a token, and a part a key that it reads: those before it
are read once for the chunk and looked at by each of its tokens. So a chunk deep in a prompt is
small from the first on. What a step without a chunk lasts is looked at again from time to time, by
leaving the chunk out: rows come, go and grow while a prompt runs. A prompt that fits one step is
not paced: it delays the others once.

Worked example: steps that decode last 10 ms, and 0.5 more a draft; a token costs 1 ms and a
thousand keys 1 ms. 7.5 ms are to be spent: 7 tokens at the beginning, (7.5 - 1) / (1 + 1) = 3
behind 1,000 others. In a step with 4 drafts 9 ms are to be spent, for it lasts 12 without a chunk.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

# What a chunk may add to a step, of the time of a step that only decodes. The rest, up to 1, is for
# what no estimate foresees.
SHARE = 0.75
START = 4  # tokens of the first chunk, when nothing is known: it must not be too long either
MOST_GROWTH = 2  # from chunk to chunk
MOST = 2**20
NUM_SAMPLES = 5  # steps that only decode, whose median counts: one that was held up does not
MAX_AGE = 32  # steps after which one must only decode again
KEPT = 0.98  # of a sample's weight from sample to sample
# Of the newest chunk's error in what is foreseen: too dear is mended sooner than too cheap.
UP, DOWN = 0.5, 0.2
MOST_ERROR = 4.0


@dataclass(frozen=True, slots=True)
class Chunk:
    """Prompt tokens of one row in one step."""

    num_tokens: int
    start: int  # how many are before them

    @property
    def num_keys(self) -> int:
        return (self.num_tokens + 1) * self.start


class Pace:
    def __init__(self) -> None:
        self._decoding = Decoding()
        self._age = MAX_AGE  # steps since the last that only decoded
        self._costs, self._error = Costs(), 1.0  # of the costs, a factor
        self._newest = 0  # tokens

    def max_long_tokens(self, num_drafts: int, start: int) -> int:
        """
        Of a prompt of which `start` are done, in a step that carries so many drafts; 0: this step
        must show what decoding takes.
        """
        if self._age >= MAX_AGE:
            return 0
        if not self._costs.is_known or not self._decoding.is_known:
            return START
        seconds = SHARE * self._decoding.seconds(num_drafts) / self._error
        return max(1, min(self._costs.afford(seconds, start), self._most))

    def observe(
        self, num_decoding: int, num_drafts: int, chunks: Sequence[Chunk], seconds: float
    ) -> None:
        """A step's rows that decode, their drafts, its chunks of prompts, and how long it took."""
        if not num_decoding:
            return
        self._age = 0 if self._age >= MAX_AGE else self._age + 1  # tried, whatever came of it
        is_other = self._decoding.is_other(num_decoding)
        if not chunks:
            if is_other:
                self._decoding = Decoding(num_decoding)
            self._decoding.learn(num_drafts, seconds)
            self._age = 0
            return
        self._newest = sum(chunk.num_tokens for chunk in chunks)
        if is_other:
            self._age = self._age and MAX_AGE  # but not twice in a row
        elif self._decoding.is_known:
            self._learn(chunks, seconds - self._decoding.seconds(num_drafts))

    @property
    def _most(self) -> int:
        return min(MOST, max(START, MOST_GROWTH * self._newest))

    def _learn(self, chunks: Sequence[Chunk], added: float) -> None:
        num_tokens = sum(chunk.num_tokens for chunk in chunks)
        num_keys = sum(chunk.num_keys for chunk in chunks)
        foreseen = self._costs.seconds(num_tokens, num_keys)
        if foreseen > 0:
            error = max(1 / MOST_ERROR, min(MOST_ERROR, added / foreseen))
            self._error += (UP if error > self._error else DOWN) * (error - self._error)
            added = min(added, MOST_ERROR * foreseen)
        self._costs.learn(num_tokens, num_keys, added)


class Decoding:
    """
    Seconds of steps that only decode, by their drafts: the median of the newest, and what a draft
    adds, the least squares of all that were seen with so many rows.
    """

    def __init__(self, num_rows: int = 0) -> None:
        self._num_rows = num_rows
        self._steps: deque[tuple[int, float]] = deque(maxlen=NUM_SAMPLES)  # drafts and seconds
        self._costs = Costs()  # of a step's rows together, and of a draft

    @property
    def is_known(self) -> bool:
        return bool(self._steps)

    def is_other(self, num_rows: int) -> bool:
        """Than what was measured."""
        return 4 * abs(num_rows - self._num_rows) > self._num_rows

    def learn(self, num_drafts: int, seconds: float) -> None:
        self._steps.append((num_drafts, seconds))
        self._costs.learn(1, num_drafts, seconds)

    def seconds(self, num_drafts: int) -> float:
        return median(self._with_drafts(num_drafts, *step) for step in self._steps)

    def _with_drafts(self, num_drafts: int, had: int, seconds: float) -> float:
        """What a step of `had` drafts would have lasted. None costs more than its mean token."""
        draft = min(self._costs.seconds(0, 1), seconds / (self._num_rows + had))
        return seconds + draft * (num_drafts - had)


class Costs:
    """Seconds a token and seconds a key, the least squares of what was seen, old samples fading."""

    def __init__(self) -> None:
        self._tt = self._tk = self._kk = 0.0  # sums of products of tokens and thousands of keys
        self._ts = self._ks = 0.0  # ... with seconds

    @property
    def is_known(self) -> bool:
        return self._tt > 0

    def learn(self, num_tokens: int, num_keys: int, seconds: float) -> None:
        t, k = float(num_tokens), num_keys / 1000
        self._tt = KEPT * self._tt + t * t
        self._tk = KEPT * self._tk + t * k
        self._kk = KEPT * self._kk + k * k
        self._ts = KEPT * self._ts + t * seconds
        self._ks = KEPT * self._ks + k * seconds

    def seconds(self, num_tokens: int, num_keys: int) -> float:
        token, key = self._fit()
        return token * num_tokens + key * num_keys

    def afford(self, seconds: float, start: int) -> int:
        """Tokens behind `start` others that take no longer; may be 0."""
        token, key = self._fit()
        each = token + key * start
        return int(max(0.0, min(MOST, (seconds - key * start) / each))) if each > 0 else MOST

    def _fit(self) -> tuple[float, float]:
        """Neither below 0."""
        if not self.is_known:
            return 0.0, 0.0
        determinant = self._tt * self._kk - self._tk * self._tk
        if determinant > 1e-6 * self._tt * self._kk:
            token = (self._ts * self._kk - self._ks * self._tk) / determinant
            key = (self._ks * self._tt - self._ts * self._tk) / determinant
            if token >= 0 and key >= 0:
                return token, key / 1000
            if token < 0:
                return 0.0, max(0.0, self._ks / self._kk) / 1000
        return max(0.0, self._ts / self._tt), 0.0
