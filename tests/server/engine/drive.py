"""Runs a Scheduler on a PageModel, checking every step's promises and gathering what came out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from model.step import Drawn, Report, Score
from server.engine.job import Job
from server.engine.pages import PagePool
from server.engine.request import Request
from server.engine.scheduler import Scheduler
from tests.fakes import Outcome, PageModel


@dataclass
class Gathered:
    """What one request was told."""

    job: Job
    drawn: list[Drawn] = field(default_factory=list)
    scored: list[Score] = field(default_factory=list)
    scored_reports: list[Report] = field(default_factory=list)
    endings: list[str] = field(default_factory=list)
    stop_id: int | None = None
    report: Report | None = None

    @property
    def tokens(self) -> list[int]:
        return [each.token for each in self.drawn]

    def is_a_beginning_of(self, outcome: Outcome) -> bool:
        pairs = (
            (self.drawn, outcome.drawn),
            (self.scored, outcome.scored),
            (self.scored_reports, outcome.scored_reports),
        )
        return all(tuple(mine) == whole[: len(mine)] for mine, whole in pairs)

    def outcome(self) -> Outcome:
        (reason,) = self.endings
        lists = (tuple(each) for each in (self.drawn, self.scored, self.scored_reports))
        return Outcome(*lists, reason, self.stop_id, self.report)


class Drive:
    def __init__(
        self,
        model: PageModel | None = None,
        max_batch: int = 8,
        max_batch_tokens: int = 64,
        *,
        speculates: bool = True,
    ) -> None:
        self.model = model or PageModel()
        self.pool = PagePool(self.model.num_pages, self.model.page_size)
        self.scheduler = Scheduler(
            self.pool,
            max_batch=max_batch,
            max_batch_tokens=max_batch_tokens,
            speculates=speculates,
        )
        self.gathered: list[Gathered] = []
        self.max_long_tokens: int | None = None
        self.num_right = 0  # guesses
        self.num_right_beside = 0  # ... beside prompts

    def add(self, request: Request) -> Gathered:
        got = Gathered(Job(len(self.gathered), request, self.pool.page_size))
        self.gathered.append(got)
        self.scheduler.add(got.job)
        return got

    def cancel(self, got: Gathered) -> None:
        if not got.endings:
            self.scheduler.remove(got.job)
            got.endings.append("cancelled")
        self._check_pages()

    def step(self) -> int:
        """The number of rows that ran."""
        rows = self.schedule()
        if rows:
            has_prompts = any(len(row.tokens) > 1 + row.num_drafts for row in rows)
            for told in self.scheduler.commit(self.model.step(rows)):
                got = self.gathered[told.job.ticket]
                assert not got.endings, "told after its ending"
                got.drawn += told.drawn
                num_right = max(0, len(told.drawn) - 1)
                self.num_right += num_right
                self.num_right_beside += num_right if has_prompts else 0
                got.scored += told.scored
                got.scored_reports += told.scored_reports
                got.endings += [told.reason] if told.reason else []
                got.stop_id = told.stop_id
                got.report = told.report
        self._check_pages()
        return len(rows)

    def fail_step(self) -> None:
        """Schedules, lets the model do its worst to the pages it may write, and raises."""
        rows = self.schedule()
        for row in rows:
            for page in row.pages[row.start // self.pool.page_size :]:
                first = row.start % self.pool.page_size if page == row.pages[-1] else 0
                self.model.pages[page][first:] = [-2] * (self.pool.page_size - first)
        for job in self.scheduler.fail() if rows else ():
            self.gathered[job.ticket].endings.append("failed")
        self._check_pages()

    def run(self, max_steps: int = 10_000) -> None:
        for _ in range(max_steps):
            if not self.step():
                return
        raise AssertionError(f"still running after {max_steps} steps")

    def schedule(self):
        limit = self.max_long_tokens
        rows = self.scheduler.schedule(None if limit is None else lambda *_: limit)
        running = self.scheduler.running
        assert len(rows) <= len(running) <= self.scheduler.max_batch
        assert sum(len(row.tokens) for row in rows) <= self.scheduler.max_batch_tokens
        assert all(len(row.tokens) == 1 + row.num_drafts for row in rows if row.num_drafts)
        outputs = [id(row.output) for row in rows]
        for job in running:
            if job.num_left == 1 or job is running[0]:
                assert id(job.output) in outputs, "a decoding job, or the oldest, was left out"
        return rows

    def _check_pages(self) -> None:
        held = Counter(page for job in self.scheduler.running for page in job.pages)
        assert self.pool.num_held == len(held)
        assert all(
            self.pool._num_holders[page] == held[page]
            for page in range(len(self.pool._num_holders))
        )
        assert not any(job.pages for job in self.scheduler.waiting)


def request(prompt=(1, 2, 3, 4, 5), max_tokens=4, **more) -> Request:
    return Request(id="r", prompt=tuple(prompt), max_tokens=max_tokens, **more)


def distinct(number: int, length: int) -> tuple[int, ...]:
    return tuple((number * 7 + i) % 50 for i in range(length))
