"""
Prompt scores kept beside a cached page, so that asking for them does not throw the prefix cache
away.

A page's scores are those of the tokens that follow each of its own: all but the last are in the
page, the last is the first of the next page, which may differ from request to request: it is then
scored anew from the page's last hidden state, which the model keeps. Packed: 32 bytes a score
instead of six Python objects.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from struct import Struct

from model.step import Ask, Report, Score

# At most 690 bytes a token are kept. A prompt that asks for more is scored anew each time.
MAX_KEPT_TOP = 20

_SCORE = Struct("<qdqd")  # the fields of Score


def is_keepable(ask: Ask) -> bool:
    is_plain = not (ask.is_processed or ask.ids or ask.full or ask.members is not None)
    return is_plain and ask.top <= MAX_KEPT_TOP


def covers(kept: Ask, ask: Ask) -> bool:
    """Whether what was reported for `kept` (keepable) holds all that `ask` wants."""
    return is_keepable(ask) and kept.top >= ask.top and kept.summary >= ask.summary


@dataclass(frozen=True, slots=True)
class PageScores:
    ask: Ask
    next_token: int  # the last target: the token after the page
    num_top: int  # alternatives a target: ask.top, or the vocabulary where that is smaller
    scores: bytes  # the targets', then each target's alternatives
    summaries: bytes  # entropy and logsumexp a target, as doubles; empty without ask.summary

    def unpack(self, ask: Ask) -> tuple[list[Score], list[Report]]:
        """Exactly what the model would report to `ask`, which is served."""
        scores = [Score(*fields) for fields in _SCORE.iter_unpack(self.scores)]
        num_targets = len(scores) // (1 + self.num_top)
        summaries = array("d", self.summaries)
        reports = []
        for i in range(num_targets):
            first = num_targets + i * self.num_top
            top = tuple(scores[first : first + min(ask.top, self.num_top)])
            pair = summaries[2 * i : 2 * i + 2] if ask.summary else (None, None)
            reports.append(Report(top=top, entropy=pair[0], logsumexp=pair[1]))
        return scores[:num_targets], reports


def pack(ask: Ask, scores: Sequence[Score], reports: Sequence[Report]) -> PageScores:
    """One page's targets in order, as reported to `ask`, which is keepable."""
    everything = chain(scores, chain.from_iterable(report.top for report in reports))
    summaries = array("d")
    if ask.summary:
        for report in reports:
            assert report.entropy is not None
            assert report.logsumexp is not None
            summaries.extend((report.entropy, report.logsumexp))
    return PageScores(
        ask=ask,
        next_token=scores[-1].token,
        num_top=len(reports[0].top),
        scores=b"".join(_SCORE.pack(*score) for score in everything),
        summaries=summaries.tobytes(),
    )
