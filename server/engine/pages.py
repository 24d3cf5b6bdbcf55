"""
Who holds which page of the KV cache, and which pages may serve a prompt again. Page numbers only:
the tensors are in model/.

A page is in exactly one of three places: held (by as many sequences as its count says), idle (no
holder, but its tokens are indexed and may serve again; the longest idle is taken first), or free.
Only full pages are shared, and a full page is never written again, so holders of one page can
share it without copying. Indexed, too, is the last page of a prompt that nothing was drawn after:
it is never written again either, and is only copied from.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b

from server.engine.kept_scores import PageScores, covers


def salt_digest(salt: str) -> bytes:
    """The parent of a sequence's first page: equal tokens under another salt are other pages."""
    return blake2b(salt.encode(), digest_size=32).digest()


def page_digest(parent: bytes, tokens: Sequence[int]) -> bytes:
    """Names a page by its tokens and all before them; 256 bits, so that no client finds a twin."""
    return blake2b(parent + array("I", tokens).tobytes(), digest_size=32).digest()


class PagePool:
    """Every operation is O(1)."""

    def __init__(self, num_pages: int, page_size: int) -> None:
        self.num_pages, self.page_size = num_pages, page_size
        self._num_holders = [0] * num_pages
        self._free = list(range(num_pages - 1, -1, -1))
        self._idle: OrderedDict[int, None] = OrderedDict()  # longest idle first
        self._page_of: dict[bytes, int] = {}
        self._digest_of: list[bytes | None] = [None] * num_pages
        self._scores: dict[
            int, PageScores
        ] = {}  # of indexed pages; they go when the page is evicted

    @property
    def num_available(self) -> int:
        return len(self._free) + len(self._idle)

    @property
    def num_held(self) -> int:
        return self.num_pages - self.num_available

    def take(self) -> int:
        """A page to write, held once. The caller has seen that one is available."""
        page = self._free.pop() if self._free else self._evict()
        self._num_holders[page] = 1
        return page

    def share(self, page: int) -> None:
        """One more holder of an indexed page."""
        assert self._digest_of[page] is not None
        self._idle.pop(page, None)
        self._num_holders[page] += 1

    def release(self, page: int) -> None:
        assert self._num_holders[page] > 0
        self._num_holders[page] -= 1
        if self._num_holders[page]:
            return
        if self._digest_of[page] is None:
            self._free.append(page)
        else:
            self._idle[page] = None

    def find(self, digest: bytes) -> int | None:
        return self._page_of.get(digest)

    def is_idle(self, page: int) -> bool:
        return page in self._idle

    def index(self, page: int, digest: bytes) -> None:
        """`page` is computed, and nothing is written to it any more. A twin goes on serving."""
        assert self._num_holders[page] > 0
        if digest not in self._page_of:
            self._page_of[digest] = page
            self._digest_of[page] = digest

    def scores(self, page: int) -> PageScores | None:
        return self._scores.get(page)

    def keep_scores(self, digest: bytes, scores: PageScores) -> None:
        """One record a page: the newest, unless the old one says as much."""
        page = self._page_of[digest]
        kept = self._scores.get(page)
        if kept is None or not covers(kept.ask, scores.ask):
            self._scores[page] = scores

    def _evict(self) -> int:
        page, _ = self._idle.popitem(last=False)
        digest = self._digest_of[page]
        assert digest is not None
        del self._page_of[digest]
        self._digest_of[page] = None
        self._scores.pop(page, None)
        return page
