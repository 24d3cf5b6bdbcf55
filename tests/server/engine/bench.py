"""A worker on a PageModel, whose clock the test turns."""

from __future__ import annotations

from server.engine.job import Job
from server.engine.live import Live
from server.engine.pages import PagePool
from server.engine.request import Ending, Request
from server.engine.scheduler import Scheduler
from server.engine.worker import Worker
from server.metrics import Metrics
from tests.fakes import PageModel


class Bench:
    def __init__(
        self, seconds_a_step: float = 0.0, before_step=None, num_pages: int = 64, **limits
    ) -> None:
        self.now = 0.0
        self.seconds_a_step, self.before_step = seconds_a_step, before_step
        self.model = PageModel(num_pages, before_step=self._run_step)
        self.pool = PagePool(self.model.num_pages, self.model.page_size)
        limits = {"max_batch": 4, "max_batch_tokens": 32, **limits}
        self.metrics = Metrics()
        self.worker = Worker(
            self.model, Scheduler(self.pool, **limits), self.metrics, lambda: self.now
        )
        self.num_added = 0

    def _run_step(self, rows) -> None:
        self.now += self.seconds_a_step
        if self.before_step:
            self.before_step(rows)

    def add(self, prompt=(1, 2, 3, 4, 5), max_tokens=4, **more) -> Live:
        name = f"request-{self.num_added}"
        request = Request(id=name, prompt=tuple(prompt), max_tokens=max_tokens, **more)
        job = Job(self.num_added, request, self.pool.page_size)
        self.num_added += 1
        live = Live(job, stream=None, index=0, submitted=self.now)
        self.worker.add([live])
        return live

    def run(self) -> dict[str, list]:
        """The updates by request id, from all that was not taken yet to the last ending."""
        while self.worker.has_work:
            self.worker.end_late()
            self.worker.step()
        told: dict[str, list] = {}
        for live, update in self.worker.take_updates():
            told.setdefault(live.job.request.id, []).append(update)
        return told

    def value(self, name: str, **labels: str) -> float:
        return self.metrics._registry.get_sample_value(f"tiedlm_{name}", labels)


def ending_of(updates) -> Ending:
    assert [update.ending is not None for update in updates] == [False] * (len(updates) - 1) + [
        True
    ]
    return updates[-1].ending
