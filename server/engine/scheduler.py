"""
Who runs in the next step, how many tokens, in which pages. Pure: no clock, no thread, no event
loop, no tensor.

A step is `rows = schedule()`, the model runs them, `commit(sampled)` (or `fail()`). In each step
every decoding job has one row; what is left of `max_batch_tokens` goes to prompt chunks, oldest
first, and then to jobs that wait.

* Admission is first come, first served, and by pages: a job starts when every token it knows has a
  page, so that only decoding ever asks for more. When a decoding job finds none, the youngest
  running job gives all of its pages back and waits in its place by age; it resumes by running
  prompt and output again, drawing on where it stopped. The oldest job is never preempted, so it
  ends, and then the next is the oldest: nobody waits for ever.
* Sharing: a job starts behind the longest chain of indexed pages that hold its own tokens. Where
  they hold them all, its row has none, and is answered from the last page's hidden state. One
  whose next page is being run in this very step by another waits for it instead of running it
  beside. It waits for a row, not for a job: when that row's job is cancelled, preempted or failed,
  nothing is to be undone.
* Speculation: where few decode, a row may carry drafts behind its token (drafts.py), beside prompts
  as without them. Those that the model draws too are tokens like any other; pages are indexed as
  far as tokens are known, never by what was only guessed.
* No partial page is ever shared: each job runs the tail of fewer than page_size tokens itself, and
  n > 1 is several jobs of one prompt. A job that says how much of its prompt another has run
  (`first_scored`) begins in a copy of that one's last page: the branches of a trie.

Worked example: page_size 4, pool of 4 pages, jobs A and B with the same prompt of 6 tokens,
max_batch_tokens 8. Step 1: A takes pages 0 and 1 and runs 6 tokens; B would begin with the page
that A is running, so it waits. Commit: page 0 is full, so it is indexed; A draws token 7. Step 2: A
decodes; B shares page 0, takes page 2, runs its last 2 tokens. When both hold 8 tokens A takes page
3; B finds none, is the youngest, releases page 2 (full by now, so indexed and idle) and waits; when
A ends, B finds pages 0 and 2 again and runs one token to go on.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter

from model.step import Row, Sampled
from server.engine.drafts import max_drafts
from server.engine.job import Job
from server.engine.pages import PagePool
from server.engine.prefix import PagesInStep, copy_part, find_prefix, share_prefix
from server.engine.progress import Progress, advance, check_answers

_by_age = attrgetter("ticket")

# Of a step that carries so many drafts, for a prompt of which so many tokens are done.
MaxLongTokens = Callable[[int, int], int]


@dataclass(slots=True)
class Budget:
    """Prompt tokens left to this step."""

    tokens: int
    long_tokens: int  # of those, for jobs that do not fit one step

    def allows(self, is_long: bool) -> bool:
        return self.tokens > 0 and (self.long_tokens > 0 or not is_long)

    def spend(self, job: Job) -> int:
        """
        How many `job` runs, perhaps none. A chunk with more to come ends where a page does, if it
        can.
        """
        limit = min(self.tokens, self.long_tokens) if job.is_long else self.tokens
        num_tokens = min(job.num_left, limit)
        if num_tokens < job.num_left:
            over = (job.num_cached + num_tokens) % job.page_size
            num_tokens -= over if over < num_tokens else 0
        self.tokens -= num_tokens
        self.long_tokens -= num_tokens if job.is_long else 0
        return num_tokens


class Scheduler:
    def __init__(
        self, pool: PagePool, *, max_batch: int, max_batch_tokens: int, speculates: bool = True
    ) -> None:
        if not 1 <= max_batch <= max_batch_tokens:  # every decoding row must fit a step
            raise ValueError(
                f"max_batch_tokens {max_batch_tokens} is less than max_batch {max_batch}"
            )
        self.pool, self.max_batch, self.max_batch_tokens = pool, max_batch, max_batch_tokens
        self.speculates = speculates
        self.waiting: list[Job] = []  # both by age, oldest first
        self.running: list[Job] = []
        self.started: list[Job] = []  # admitted for the first time by the last schedule()
        self.num_preemptions = 0
        self._step: list[tuple[Job, Row]] = []
        self._pages_in_step = PagesInStep()

    def add(self, job: Job) -> None:
        """Alone, it must fit the pool: `len(prompt) + max_tokens - 1` tokens are cached at most."""
        insort(self.waiting, job, key=_by_age)

    def remove(self, job: Job) -> None:
        """Cancelled or too late, in whatever phase. Not between schedule() and commit()."""
        if not _discard(self.waiting, job) and _discard(self.running, job):
            self._release(job)

    def schedule(self, max_long_tokens: MaxLongTokens | None = None) -> list[Row]:
        """The rows of the next step; none only when there is no job.

        `max_long_tokens` bounds long prompts in a step that also decodes: 0 leaves them out.
        """
        self._step, self.started, self._pages_in_step = [], [], PagesInStep()
        self._plan_decoding()
        num_tokens = sum(len(row.tokens) for _, row in self._step)
        num_left = num_long = self.max_batch_tokens - num_tokens
        if max_long_tokens and self._step:
            num_long = max_long_tokens(num_tokens - len(self._step), self._long_start)
        budget = Budget(num_left, num_long)
        self._plan_prompts(budget)
        self._admit(budget)
        assert self._step or not (self.waiting or self.running)
        return [row for _, row in self._step]

    def commit(self, sampled: Sequence[Sampled]) -> list[Progress]:
        """What the step's rows brought back, in their order."""
        check_answers([row for _, row in self._step], sampled)
        progress = [
            advance(self.pool, job, row, got)
            for (job, row), got in zip(self._step, sampled, strict=True)
        ]
        for told in progress:
            if told.reason:
                self.remove(told.job)
        self._step = []
        return progress

    def fail(self) -> list[Job]:
        """Ends the jobs of a step that raised; every job, where scheduling itself raised."""
        failed = [job for job, _ in self._step] or self.running + self.waiting
        self._step = []
        for job in failed:
            self.remove(job)
        return failed

    def _plan_decoding(self) -> None:
        turn, max_drafts = 0, self._max_drafts()
        while turn < len(self.running):  # preemption shortens the list from its end
            job = self.running[turn]
            if job.num_left == 1 and self._make_room(job):
                self._step.append((job, job.row(1, self._drafts(job, max_drafts))))
            turn += 1

    def _max_drafts(self) -> int:
        """
        Of each row: beside prompts as without them, or a row that guesses well would lose more to a
        prompt than the time it takes. But at least half of a step is left to prompts.
        """
        if not self.speculates:
            return 0
        num_decoding = sum(job.num_left == 1 for job in self.running)
        has_prompts = self.waiting or num_decoding < len(self.running)
        return max_drafts(num_decoding, self.max_batch_tokens // (2 if has_prompts else 1))

    def _drafts(self, job: Job, limit: int) -> list[int]:
        """As far as they have room: a page more only where no running job will miss it."""
        if not limit or not job.may_draft:
            return []
        drafts = job.guess(limit)
        num_tokens = len(job.tokens) + len(drafts)
        if num_tokens > len(job.pages) * job.page_size:
            if self.pool.num_available > len(self.running):
                job.pages.append(self.pool.take())
            num_room = len(job.pages) * job.page_size - len(job.tokens)
            drafts = drafts[:num_room]
        return drafts

    def _make_room(self, job: Job) -> bool:
        """A page more where the next token needs one. False: `job` was itself the youngest."""
        while job.needs_page:
            if self.pool.num_available:
                job.pages.append(self.pool.take())
                continue
            youngest = self.running.pop()
            self._preempt(youngest)
            if youngest is job:
                return False
        return True

    def _preempt(self, job: Job) -> None:
        self._release(job)
        insort(self.waiting, job, key=_by_age)
        self.num_preemptions += 1

    @property
    def _long_start(self) -> int:
        """How much of the long prompt that is next in turn is done."""
        jobs = (job for job in self.running if job.is_long and job.num_left > 1)
        return next((job.num_cached for job in jobs), 0)

    def _plan_prompts(self, budget: Budget) -> None:
        for job in self.running:
            if job.num_left > 1 and budget.allows(job.is_long):
                self._plan_chunk(job, budget)

    def _plan_chunk(self, job: Job, budget: Budget) -> None:
        self._pages_in_step.add(job)
        self._step.append((job, job.row(budget.spend(job))))

    def _admit(self, budget: Budget) -> None:
        turn = 0  # how many were passed over; to look at more than a batch of them is not worth it
        while turn < min(len(self.waiting), self.max_batch) and budget.tokens:
            if len(self.running) == self.max_batch:
                return
            job = self.waiting[turn]
            found = find_prefix(self.pool, job)
            is_long = len(job.tokens) - len(found) * job.page_size > self.max_batch_tokens
            if not budget.allows(is_long) or self._pages_in_step.serves(job, len(found)):
                turn += 1
                continue
            if not self._has_room(job, found):
                return  # the younger do not overtake: they would keep it waiting for ever
            del self.waiting[turn]
            self._start(job, found, is_long)
            self._plan_chunk(job, budget)

    def _has_room(self, job: Job, found: Sequence[int]) -> bool:
        """Pages for all its tokens, and one for each that runs, lest it be preempted at once."""
        num_taken = -(-len(job.tokens) // job.page_size) - len(found)
        num_idle = sum(map(self.pool.is_idle, found))
        return num_taken + num_idle + len(self.running) <= self.pool.num_available

    def _start(self, job: Job, found: Sequence[int], is_long: bool) -> None:
        share_prefix(self.pool, job, found)  # before any page is taken: taking evicts what is idle
        copy_part(self.pool, job)
        while job.needs_page:
            job.pages.append(self.pool.take())
        job.is_long = is_long
        if job.num_reused is None:
            job.num_reused = job.num_cached
            self.started.append(job)
        insort(self.running, job, key=_by_age)

    def _release(self, job: Job) -> None:
        for page in reversed(job.pages):  # the end of a chain is useless without its beginning
            self.pool.release(page)
        job.pages, job.num_cached, job.copied_from = [], 0, None


def _discard(jobs: list[Job], job: Job) -> bool:
    place = bisect_left(jobs, job.ticket, key=_by_age)
    is_there = place < len(jobs) and jobs[place] is job
    if is_there:
        del jobs[place]
    return is_there
