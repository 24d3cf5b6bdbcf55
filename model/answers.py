"""
What the rows of a step asked for, from the hidden states at their positions.

R rows, N positions, C hidden size, V vocabulary. However many positions are asked about, logits
exist for a bounded number of them at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from model import blockwise
from model.blockwise import Answering, Scored, Scoring
from model.distribution import Told, reports, scores
from model.embedding import TiedEmbedding
from model.kernels import Draw, Kernels
from model.sampler import draw_of, is_shifted, shift
from model.step import Ask, Drawn, Report, Row, Sampling, Score

CHUNK_BYTES = 64 << 20  # of logits and log-probabilities, held at a time
GREEDY = Draw(temperature=0.0, top_k=0, top_p=1.0, min_p=0.0, uniform=0.0)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row draws or asks: behind its last token, or behind one before a draft."""

    row: Row
    num_before: int = 0  # drafts of the row before it

    @property
    def sampling(self) -> Sampling | None:
        return self.row.sampling

    @property
    def is_processed(self) -> bool:
        row = self.row
        return row.sampling is not None and row.ask is not None and row.ask.is_processed

    def draw(self) -> Draw:
        sampling = self.row.sampling
        return GREEDY if sampling is None else draw_of(self.row, sampling, self.num_before)


Answer = Drawn | Report | None


def answer_all(
    places: Sequence[Place],
    states: Tensor,
    scorings: Sequence[Scoring],
    embedding: TiedEmbedding,
) -> tuple[list[Answer], list[Scored]]:
    """
    states (R,C) at the places -> what was drawn there; where nothing is, the report to its ask. And
    each scoring's. All that needs no whole row of logits comes of one pass over the matrix.
    """
    answering = None
    if places and all(map(_is_blockwise, places)):
        answering = Answering([place.row for place in places], states)
    asked = [each for each in scorings if blockwise.serves(each.ask)]
    told = iter(blockwise.project([*asked, *([answering] if answering else [])], embedding))
    scored = [
        each.read(next(told)) if blockwise.serves(each.ask) else _score_whole(each, embedding)
        for each in scorings
    ]
    if answering is not None:
        return answering.read(next(told)), scored
    return _answer_whole(places, states, embedding), scored


def _answer_whole(
    places: Sequence[Place], hidden: Tensor, embedding: TiedEmbedding
) -> list[Answer]:
    answers: list[Answer] = []
    has_more = any(is_shifted(place.row) or place.is_processed for place in places)
    # Logits; where it is asked for, shifted logits and the processed distributions as well.
    for part in _chunks(len(places), (4 if has_more else 1) * embedding.vocab_size):
        settled = [_settle(place) for place in places[part]]
        answers += _answer(settled, embedding.logits(hidden[part]), embedding.kernels)
    return answers


def _is_blockwise(place: Place) -> bool:
    """Nothing is done to the logits before the likeliest token, if any, is drawn."""
    row = place.row
    is_greedy = row.sampling is None or row.sampling.temperature == 0.0
    return is_greedy and not is_shifted(row) and blockwise.serves(row.ask)


def _settle(place: Place) -> Place:
    """With the mask that was being computed meanwhile."""
    pending = place.row.pending
    if pending is None:
        return place
    return replace(place, row=replace(place.row, allowed=pending(), pending=None))


def _answer(places: Sequence[Place], logits: Tensor, kernels: Kernels) -> list[Answer]:
    """logits (R,V)."""
    answers: list[Answer] = [None] * len(places)
    for is_processed in (False, True):
        rows = [r for r, place in enumerate(places) if place.is_processed == is_processed]
        if rows:
            mine = [places[r] for r in rows]
            part = logits if len(rows) == len(places) else logits[torch.tensor(rows)]
            found = (_processed if is_processed else _raw)(mine, part, kernels)
            for r, answer in zip(rows, found, strict=True):
                answers[r] = answer
    return answers


def _raw(places: Sequence[Place], logits: Tensor, kernels: Kernels) -> list[Answer]:
    """What is told of is the model's own distribution; no exponential unless it is asked for."""
    asking = [r for r, place in enumerate(places) if place.row.ask is not None]
    told = Told(logits, logits, _log_sums(logits, asking, kernels))
    shifted = shift(logits, [place.row for place in places])
    known = told.sums if shifted is logits else None
    tokens, _ = kernels.choose(shifted, [place.draw() for place in places], known)
    return _tell(places, asking, told, tokens, kernels)


def _log_sums(logits: Tensor, asking: Sequence[int], kernels: Kernels) -> Tensor:
    """(R,) float64: NaN for rows that do not ask."""
    if len(asking) == len(logits):
        return kernels.log_sum_exp(logits)
    sums = torch.full((len(logits),), torch.nan, dtype=torch.float64)
    if asking:
        rows = torch.tensor(asking)
        sums[rows] = kernels.log_sum_exp(logits[rows])
    return sums


def _processed(places: Sequence[Place], logits: Tensor, kernels: Kernels) -> list[Answer]:
    """What is told of is what was drawn from."""
    shifted = shift(logits, [place.row for place in places])
    draws = [place.draw() for place in places]
    tokens, shown = kernels.choose(shifted, draws, has_processed=True)
    assert shown is not None
    told = Told(logits, shown, None, _scaled(shifted, draws))
    return _tell(places, range(len(places)), told, tokens, kernels)


def _scaled(shifted: Tensor, draws: Sequence[Draw]) -> Tensor:
    temperatures = [draw.temperature or 1.0 for draw in draws]
    if all(each == 1.0 for each in temperatures):
        return shifted
    return shifted / torch.tensor(temperatures)[:, None]


def _tell(
    places: Sequence[Place], asking: Sequence[int], told: Told, tokens: Tensor, kernels: Kernels
) -> list[Answer]:
    """tokens (R,), drawn where the place draws."""
    own: dict[int, Score] = {}
    if asking:
        rows = torch.tensor(asking, dtype=torch.int64)
        own = dict(zip(asking, scores(told, rows, tokens[rows], kernels), strict=True))
    about = _reports(places, asking, told, kernels)
    return [
        about.get(r) if place.sampling is None else Drawn(token, own.get(r), about.get(r))
        for r, (place, token) in enumerate(zip(places, tokens.tolist(), strict=True))
    ]


def _reports(
    places: Sequence[Place], asking: Sequence[int], told: Told, kernels: Kernels
) -> dict[int, Report]:
    """Equal asks are answered together."""
    alike: dict[Ask, list[int]] = {}
    for r in asking:
        ask = places[r].row.ask
        assert ask is not None
        alike.setdefault(ask, []).append(r)
    return {
        r: report
        for ask, rows in alike.items()
        for r, report in zip(rows, reports(ask, told.part(rows), kernels), strict=True)
    }


def _score_whole(asked: Scoring, embedding: TiedEmbedding) -> Scored:
    found: list[Score] = []
    told: list[Report] = []
    # Logits, and nearly as many again twice where a mass is summed.
    has_members = asked.ask is not None and asked.ask.members is not None
    size = (3 if has_members else 1) * embedding.vocab_size
    for part in _chunks(len(asked.targets), size):
        own, about = _score_part(asked.hidden[part], asked.targets[part], asked.ask, embedding)
        found += own
        told += about
    return found, told


def _score_part(
    hidden: Tensor, targets: Tensor, ask: Ask | None, embedding: TiedEmbedding
) -> tuple[list[Score], list[Report]]:
    """A function, so that one part's logits are gone before the next part's are computed."""
    kernels = embedding.kernels
    logits = embedding.logits(hidden)
    told = Told(logits, logits, kernels.log_sum_exp(logits))
    about = [] if ask is None else reports(ask, told, kernels)
    return scores(told, torch.arange(len(logits)), targets, kernels), about


def _chunks(count: int, num_floats: int) -> Iterator[slice]:
    size = max(1, CHUNK_BYTES // (4 * num_floats))
    return (slice(first, min(first + size, count)) for first in range(0, count, size))
