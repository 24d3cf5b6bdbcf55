"""
A model without arithmetic, for everything that needs a runner and no tensors.

PageModel keeps what real pages keep: which token was written where, and what stood before and in a
page when its last token was. It draws from a digest of the whole context *as the pages hold it*, so
any slip of the accounting changes the output, and it checks every row against the pages first.
`alone` says what a request must come to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from model.step import Ask, Drawn, Report, Row, Sampled, Score
from server.engine.request import Request

EMPTY = -1


class PageModel:
    def __init__(
        self,
        num_pages: int = 64,
        page_size: int = 4,
        vocab_size: int = 50,
        before_step: Callable[[Sequence[Row]], None] | None = None,
    ) -> None:
        """`before_step` may block, raise or look: it stands for what a step costs."""
        self.num_pages, self.page_size, self.vocab_size = num_pages, page_size, vocab_size
        self.before_step = before_step
        self.pages = [[EMPTY] * page_size for _ in range(num_pages)]
        self.ends: list[list[int]] = [[] for _ in range(num_pages)]  # the context at each one's end
        self.num_steps = self.num_tokens_run = self.num_positions_scored = 0

    def step(self, rows: Sequence[Row]) -> list[Sampled]:
        if self.before_step:
            self.before_step(rows)
        self.num_steps += 1
        assert rows, "an empty step"
        for row in rows:
            self._check_pages(row, rows)
        for row in rows:
            self._copy(row)
        for row in rows:
            self._write(row)
        return [self._answer(row) for row in rows]

    def _check_pages(self, row: Row, rows: Sequence[Row]) -> None:
        """What a row writes is in no other row's hands."""
        assert row.tokens or (row.start and row.start % self.page_size == 0), "nothing to tell of"
        num_pages = math.ceil((row.start + len(row.tokens)) / self.page_size)
        assert len(row.pages) == len(set(row.pages)) == num_pages
        written = set(row.pages[row.start // self.page_size :])
        for other in rows:
            assert other is row or not written.intersection(other.pages)

    def _copy(self, row: Row) -> None:
        if row.copied_from is not None:
            page, count = divmod(row.start, self.page_size)
            assert count, "nothing to copy"
            self.pages[row.pages[page]][:count] = self.pages[row.copied_from][:count]

    def _write(self, row: Row) -> None:
        known = [*row.prompt, *row.output]
        assert self._context(row, row.start) == known[: row.start], "pages hold other tokens"
        num_known = len(row.tokens) - row.num_drafts
        assert list(row.tokens[:num_known]) == known[row.start : row.start + num_known]
        assert not row.num_drafts or (row.sampling and row.start + num_known == len(known))
        for position, token in enumerate(row.tokens, start=row.start):
            page = row.pages[position // self.page_size]
            self.pages[page][position % self.page_size] = token
            if (position + 1) % self.page_size == 0:
                self.ends[page] = self._context(row, position + 1)
        self.num_tokens_run += len(row.tokens)
        self.num_positions_scored += len(row.targets)

    def _context(self, row: Row, length: int) -> list[int]:
        size = self.page_size
        return [self.pages[row.pages[i // size]][i % size] for i in range(length)]

    def _answer(self, row: Row) -> Sampled:
        end = row.start + len(row.tokens)
        context = self._context(row, end) if row.tokens else self.ends[row.pages[-1]]
        assert len(context) == end, "the page's end is another's"
        first = row.start + row.first_target
        assert row.first_target >= 0 or (row.start and row.start % self.page_size == 0)
        prefixes = [context[: first + i + 1] for i in range(len(row.targets))]
        scored = tuple(map(score, prefixes, row.targets))
        ask = row.targets_ask
        reports = tuple(report(each, ask, self.vocab_size) for each in prefixes if ask)
        if row.sampling is None:
            said = report(context, row.ask, self.vocab_size) if row.ask else None
            return Sampled((), said, scored, reports)
        return Sampled(tuple(self._draws(row, context)), None, scored, reports)

    def _draws(self, row: Row, context: Sequence[int]) -> Iterator[Drawn]:
        """Until a token is not the draft that follows in the context."""
        first = len(context) - row.num_drafts
        for i in range(row.num_drafts + 1):
            known, index = context[: first + i], len(row.output) + i
            one = drawn(known, row.sampling.seed, index, row.banned, row.ask, self.vocab_size)
            yield one
            if i < row.num_drafts and one.token != context[first + i]:
                return


@dataclass(frozen=True)
class Outcome:
    drawn: tuple[Drawn, ...]
    scored: tuple[Score, ...]
    scored_reports: tuple[Report, ...]
    reason: str
    stop_id: int | None
    report: Report | None = None  # where nothing is drawn


def alone(request: Request, vocab_size: int = 50) -> Outcome:
    """The naive loop: no pages, no batch, no cache."""
    prompt, told = request.prompt, []
    targets = range(request.first_scored, len(prompt)) if request.prompt_ask else ()
    scored = tuple(score(prompt[:i], prompt[i]) for i in targets)
    reports = tuple(report(prompt[:i], request.prompt_ask, vocab_size) for i in targets)
    if not request.max_tokens:
        said = report(prompt, request.ask, vocab_size) if request.ask else None
        return Outcome((), scored, reports, "length", None, said)
    context = list(prompt)
    while len(told) < request.max_tokens:
        banned = request.stop_ids if len(told) < request.min_tokens else ()
        seed = request.sampling.seed
        told.append(drawn(context, seed, len(told), banned, request.ask, vocab_size))
        context.append(told[-1].token)
        if context[-1] in request.stop_ids:
            return Outcome(tuple(told), scored, reports, "stop", context[-1])
    return Outcome(tuple(told), scored, reports, "length", None)


def drawn(
    context: Sequence[int],
    seed: int,
    index: int,
    banned: Sequence[int],
    ask: Ask | None,
    vocab_size: int,
) -> Drawn:
    token = draw(context, seed, index, banned, vocab_size)
    if ask is None:
        return Drawn(token)
    return Drawn(token, score(context, token), report(context, ask, vocab_size))


def draw(
    context: Sequence[int], seed: int, index: int, banned: Sequence[int], vocab_size: int
) -> int:
    """By these and nothing else, as a sampler draws."""
    token = number(context, seed, index) % vocab_size
    while token in banned:
        token = (token + 1) % vocab_size
    return token


def report(context: Sequence[int], ask: Ask, vocab_size: int) -> Report:
    return Report(
        top=tuple(score(context, token) for token in range(min(ask.top, vocab_size))),
        ids=tuple(score(context, token) for token in ask.ids),
        entropy=number(context, 1) / 2**64 if ask.summary else None,
        logsumexp=number(context, 2) / 2**60 if ask.summary else None,
    )


def score(context: Sequence[int], token: int) -> Score:
    """Each field hangs on the whole context: a score of another position cannot pass for it."""
    value = number(context, token)
    return Score(token, -value / 2**60, 1 + value % 1000, value / 2**59)


def number(context: Sequence[int], *more: int) -> int:
    """64 bits of a digest."""
    digest = blake2b(repr((*context, "|", *more)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")
