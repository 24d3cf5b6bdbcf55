"""One request on its way: its tokens, how many are cached, in which pages. No policy, no clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from model.step import Ask, Report, Row, Score
from server.engine.drafts import Drafts
from server.engine.pages import page_digest, salt_digest
from server.engine.request import Request


@dataclass(slots=True, eq=False)
class Job:
    ticket: int  # order of arrival: the lower, the older
    request: Request
    page_size: int
    tokens: list[int] = field(init=False)  # prompt and output
    output: list[int] = field(default_factory=list)
    banned: tuple[int, ...] = field(init=False)
    pages: list[int] = field(default_factory=list)  # the scheduler's; room for all of `tokens`, and
    # perhaps for drafts that were wrong
    num_cached: int = 0  # tokens whose keys and values are in `pages`
    num_reused: int | None = (
        None  # prompt tokens found in the prefix cache; None before the first admission
    )
    is_long: bool = False  # more to run than one step takes: its chunks are paced
    num_scored: int = field(
        init=False
    )  # prompt tokens, from the second on, whose scores are known or not wanted
    copied_from: int | None = (
        None  # the page to copy the cached part of a page from, by the next row
    )
    unsent_scores: list[Score] = field(default_factory=list)  # they leave with the next row's
    unsent_reports: list[Report] = field(default_factory=list)
    drafts: Drafts = field(default_factory=Drafts)
    _digests: list[bytes] = field(init=False)  # of the salt, then of each full page asked for

    def __post_init__(self) -> None:
        self.tokens = list(self.request.prompt)
        self.num_scored = self.request.first_scored - 1
        self.banned = tuple(sorted(self.request.stop_ids))
        self._digests = [salt_digest(self.request.cache_salt)]

    @property
    def num_left(self) -> int:
        """
        Tokens known but not in the cache. 1 while decoding: the token drawn last. 0 where cached
        pages hold them all, until the row that answers from the last one's end.
        """
        return len(self.tokens) - self.num_cached

    @property
    def num_reusable(self) -> int:
        """Pages that may come from the cache: the full ones, whose last hidden states are kept."""
        return len(self.tokens) // self.page_size

    @property
    def needs_page(self) -> bool:
        return len(self.tokens) > len(self.pages) * self.page_size

    def digest(self, page: int) -> bytes:
        """Of the page-th page of this sequence, which must be full."""
        while len(self._digests) <= page + 1:
            start = (len(self._digests) - 1) * self.page_size
            tokens = self.tokens[start : start + self.page_size]
            assert len(tokens) == self.page_size
            self._digests.append(page_digest(self._digests[-1], tokens))
        return self._digests[page + 1]

    def part_digest(self, num_tokens: int) -> bytes:
        """Of a page that is not full, where the first `num_tokens` of this sequence end."""
        page, over = divmod(num_tokens, self.page_size)
        parent = self.digest(page - 1) if page else self._digests[0]
        return page_digest(parent, self.tokens[num_tokens - over : num_tokens])

    def scores_wanted(self, page: int) -> Ask | None:
        """What must be known of the page's targets before it may come from the cache."""
        num_targets = min(self._num_targets, (page + 1) * self.page_size)
        return self.request.prompt_ask if self.num_scored < num_targets else None

    def token_after(self, page: int) -> int | None:
        """None where the page ends the sequence."""
        end = (page + 1) * self.page_size
        return self.tokens[end] if end < len(self.tokens) else None

    @property
    def may_draft(self) -> bool:
        """A token was drawn, and what is drawn next hangs on nothing but the tokens before it."""
        request = self.request
        sampling = request.sampling
        return bool(
            self.output
            and len(self.output) >= request.min_tokens
            and request.constraint is None
            and sampling.repetition_penalty == 1.0
            and not (sampling.presence_penalty or sampling.frequency_penalty)
        )

    def guess(self, limit: int) -> list[int]:
        """Drafts of the next tokens but one: the last of all is drawn, not guessed."""
        num_left = self.request.max_tokens - len(self.output)
        return self.drafts.guess(self.tokens, min(limit, num_left - 1))

    def row(self, num_tokens: int, drafts: Sequence[int] = ()) -> Row:
        """
        The next `num_tokens`, none where all are cached, and drafts behind the last. `pages` and
        `output` are the job's own, valid for the step.
        """
        request, start = self.request, self.num_cached
        end = start + num_tokens
        is_whole = end == len(self.tokens)
        num_pages = -(-(end + len(drafts)) // self.page_size)
        draws = is_whole and request.max_tokens > 0
        first_target, targets = self._targets(start, end)
        bound = request.constraint if draws else None
        return Row(
            tokens=[*self.tokens[start:end], *drafts],
            start=start,
            pages=self.pages if num_pages == len(self.pages) else self.pages[:num_pages],
            sampling=request.sampling if draws else None,
            ask=request.ask if is_whole else None,
            prompt=request.prompt,
            output=self.output,
            banned=self.banned if draws and len(self.output) < request.min_tokens else (),
            pending=bound.mask(self.output) if bound else None,
            targets=targets,
            first_target=first_target,
            targets_ask=request.prompt_ask if targets else None,
            num_drafts=len(drafts),
            copied_from=self.copied_from,
        )

    @property
    def _num_targets(self) -> int:
        return len(self.request.prompt) - 1 if self.request.prompt_ask is not None else 0

    def _targets(self, start: int, end: int) -> tuple[int, Sequence[int]]:
        """None for a chunk that is scored already, which is context or a resumed job's."""
        end = min(end, self._num_targets)
        if end <= self.num_scored:
            return 0, ()
        # Behind a cached page whose own tokens are scored, the first target is the token after it.
        is_behind = self.num_scored < start
        first = -1 if is_behind else max(0, self.request.first_scored - 1 - start)
        return first, self.tokens[start + first + 1 : end + 1]
