"""What a row brought back, written into its job: tokens, full pages, scores, whether it is over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from model.step import Drawn, Report, Row, Sampled, Score
from server.engine.job import Job
from server.engine.kept_scores import is_keepable, pack
from server.engine.pages import PagePool


@dataclass(frozen=True, slots=True)
class Progress:
    """What a step did for one job. All empty: a prompt chunk, of which nothing is to be told."""

    job: Job
    drawn: tuple[Drawn, ...] = ()
    report: Report | None = None  # of what follows a prompt after which nothing is drawn
    scored: tuple[Score, ...] = ()
    scored_reports: tuple[Report, ...] = ()
    reason: Literal["stop", "length"] | None = None  # None: it goes on
    stop_id: int | None = None


def check_answers(rows: Sequence[Row], sampled: Sequence[Sampled]) -> None:
    """Before anything changes: a runner that breaks its word fails the step as one that raises."""
    if len(sampled) != len(rows):
        raise RuntimeError(f"{len(sampled)} answers to {len(rows)} rows")
    for row, got in zip(rows, sampled, strict=True):
        if not (row.sampling is not None) <= len(got.drawn) <= most_drawn(row):
            raise RuntimeError(f"a row of {row.num_drafts} drafts drew {len(got.drawn)} tokens")
        if not len(got.scored) == len(got.scored_reports) == len(row.targets):
            raise RuntimeError(f"{len(got.scored)} scores for {len(row.targets)} targets")


def most_drawn(row: Row) -> int:
    return 0 if row.sampling is None else 1 + row.num_drafts


def advance(pool: PagePool, job: Job, row: Row, got: Sampled) -> Progress:
    drawn, reason, stop_id = _append(job, got.drawn)
    num_right = max(0, len(drawn) - 1)
    if row.num_drafts:
        job.drafts.learn(len(job.tokens), row.num_drafts, num_right)
    # What was computed for drafts that were wrong is written over by the next row.
    end = row.start + len(row.tokens) - row.num_drafts + num_right
    for page in range(row.start // job.page_size, end // job.page_size):
        pool.index(job.pages[page], job.digest(page))
    job.num_cached, job.copied_from = end, None
    if row.targets:
        _take_scores(pool, job, row, got)
    scored, reports = tuple(job.unsent_scores), tuple(job.unsent_reports)
    if scored:
        job.unsent_scores, job.unsent_reports = [], []
    if not drawn and job.num_left == 0:  # max_tokens 0: the prompt was all
        reason = "length"
        if end % job.page_size:
            pool.index(job.pages[-1], job.part_digest(end))
    return Progress(job, drawn, got.report, scored, reports, reason, stop_id)


def _append(
    job: Job, drawn: Sequence[Drawn]
) -> tuple[tuple[Drawn, ...], Literal["stop", "length"] | None, int | None]:
    """Those that count - none does after an end token - and how the request ended, if it did."""
    for i, each in enumerate(drawn, start=1):
        job.tokens.append(each.token)
        job.output.append(each.token)
        if each.token in job.request.stop_ids:
            return tuple(drawn[:i]), "stop", each.token
    is_over = bool(drawn) and len(job.output) == job.request.max_tokens
    return tuple(drawn), "length" if is_over else None, None


def _take_scores(pool: PagePool, job: Job, row: Row, got: Sampled) -> None:
    first = row.start + row.first_target
    num_known = job.num_scored - first  # a resumed job sends nothing twice
    job.unsent_scores += got.scored[num_known:]
    job.unsent_reports += got.scored_reports[num_known:]
    end = first + len(row.targets)
    job.num_scored = max(job.num_scored, end)
    ask, size = row.targets_ask, job.page_size
    if ask is None or not is_keepable(ask):
        return
    for page in range(-(-first // size), end // size):  # those with every target in this row
        part = slice(page * size - first, (page + 1) * size - first)
        kept = pack(ask, got.scored[part], got.scored_reports[part])
        pool.keep_scores(job.digest(page), kept)
