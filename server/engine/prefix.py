"""What a job need not run: pages that are indexed, and pages that another job runs in this step."""

from __future__ import annotations

from collections.abc import Sequence

from model.step import Ask
from server.engine.job import Job
from server.engine.kept_scores import covers, is_keepable
from server.engine.pages import PagePool


def find_prefix(pool: PagePool, job: Job) -> list[int]:
    """The longest chain of indexed pages with the job's tokens, and the scores it wants of them."""
    found: list[int] = []
    while len(found) < job.num_reusable:
        page = pool.find(job.digest(len(found)))
        if page is None:
            break
        ask, scores = job.scores_wanted(len(found)), pool.scores(page)
        if ask and not (scores and covers(scores.ask, ask)):
            break
        found.append(page)
        if ask and scores and scores.next_token != job.token_after(len(found) - 1):
            break  # the next row scores its own token, from the page's last hidden state
    return found


def share_prefix(pool: PagePool, job: Job, found: Sequence[int]) -> None:
    """The job begins behind these pages; scores it wants of them leave with its first row."""
    for i, page in enumerate(found):
        pool.share(page)
        if ask := job.scores_wanted(i):
            kept = pool.scores(page)
            assert kept is not None
            scores, reports = kept.unpack(ask)
            num_serving = job.page_size - (kept.next_token != job.token_after(i))
            num_known = job.num_scored - i * job.page_size  # a resumed job has sent these
            job.unsent_scores += scores[num_known:num_serving]
            job.unsent_reports += reports[num_known:num_serving]
            job.num_scored = max(job.num_scored, i * job.page_size + num_serving)
    job.pages, job.num_cached = list(found), len(found) * job.page_size


def copy_part(pool: PagePool, job: Job) -> None:
    """
    The job, behind its full pages, begins in a copy of what is known of the next. The page copied
    from need not be held: the step copies before it writes.
    """
    num_known = job.request.first_scored - 1
    if num_known % job.page_size and num_known // job.page_size == len(job.pages):
        job.copied_from = pool.find(job.part_digest(num_known))
        if job.copied_from is not None:
            job.num_cached = num_known


class PagesInStep:
    """The page that each prompt row of one step begins with. The next step has its own."""

    def __init__(self) -> None:
        self._run: set[bytes] = set()
        self._scored: dict[bytes, Ask] = {}

    def add(self, job: Job) -> None:
        page = job.num_cached // job.page_size
        if (page + 1) * job.page_size > len(job.tokens):
            return
        self._run.add(job.digest(page))
        ask = job.scores_wanted(page)
        is_scored_whole = job.request.first_scored - 1 <= page * job.page_size
        has_next = job.token_after(page) is not None  # else the page's last target is not known
        if ask and is_keepable(ask) and is_scored_whole and has_next:
            self._scored[job.digest(page)] = ask

    def serves(self, job: Job, page: int) -> bool:
        """Whether the job, whose next page to run this is, should wait until the step is over."""
        if page >= job.num_reusable:
            return False
        ask = job.scores_wanted(page)
        if ask is None:
            return job.digest(page) in self._run
        offered = self._scored.get(job.digest(page))
        return offered is not None and covers(offered, ask)
