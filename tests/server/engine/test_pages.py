from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from model.step import Ask, Report, Score
from server.engine.kept_scores import pack
from server.engine.pages import PagePool, page_digest, salt_digest


def kept(token: int, top: int = 0):
    scores = [Score(token, -1.0, 1, 2.0)]
    return pack(Ask(top=top), scores, [Report(top=(Score(0, -0.5, 1, 3.0),) * top)])


def indexed(pool: PagePool, digest: bytes) -> int:
    """An idle page that serves `digest`."""
    page = pool.take()
    pool.index(page, digest)
    pool.release(page)
    return page


def test_a_page_nobody_indexed_is_free_again_when_released():
    pool = PagePool(2, 4)
    page = pool.take()
    assert pool.num_held == 1
    pool.release(page)
    assert (pool.num_held, pool.num_available) == (0, 2)
    assert not pool.is_idle(page)


def test_an_indexed_page_serves_after_its_holder_left():
    pool = PagePool(2, 4)
    page = indexed(pool, b"a")
    assert pool.find(b"a") == page
    assert pool.is_idle(page)
    pool.share(page)
    assert pool.num_held == 1
    assert not pool.is_idle(page)


def test_free_pages_are_taken_before_idle_ones():
    pool = PagePool(2, 4)
    page = indexed(pool, b"a")
    assert pool.take() != page
    assert pool.find(b"a") == page


def test_the_longest_idle_page_is_evicted_first():
    pool = PagePool(3, 4)
    a, b, c = [pool.take() for _ in range(3)]
    for page, digest in ((a, b"a"), (b, b"b"), (c, b"c")):
        pool.index(page, digest)
    for page in (b, c, a):
        pool.release(page)
    pool.share(b)  # used again, so it is the newest
    pool.release(b)
    assert [pool.take() for _ in range(3)] == [c, a, b]
    assert pool.find(b"a") is pool.find(b"b") is pool.find(b"c") is None


def test_a_page_with_two_holders_outlives_one():
    pool = PagePool(1, 4)
    page = indexed(pool, b"a")
    pool.share(page)
    pool.share(page)
    pool.release(page)
    assert pool.num_available == 0
    pool.release(page)
    assert pool.num_available == 1


def test_the_twin_of_an_indexed_page_is_not_indexed_and_is_freed():
    pool = PagePool(2, 4)
    first = indexed(pool, b"a")
    twin = pool.take()
    pool.index(twin, b"a")
    pool.release(twin)
    assert pool.find(b"a") == first
    assert not pool.is_idle(twin)


def test_scores_go_when_their_page_is_evicted():
    pool = PagePool(1, 4)
    page = indexed(pool, b"a")
    pool.keep_scores(b"a", kept(5))
    assert pool.scores(page) is not None
    assert pool.take() == page
    assert pool.scores(page) is None


def test_kept_scores_are_replaced_only_by_what_they_do_not_say():
    pool = PagePool(1, 4)
    page = indexed(pool, b"a")
    rich, poor, richer = kept(5, top=2), kept(6), kept(6, top=3)
    pool.keep_scores(b"a", rich)
    pool.keep_scores(b"a", poor)
    assert pool.scores(page) is rich
    pool.keep_scores(b"a", richer)
    assert pool.scores(page) is richer


def test_a_digest_hangs_on_salt_parent_and_every_token():
    root = salt_digest("")
    digests = {
        page_digest(root, (1, 2)),
        page_digest(root, (2, 1)),
        page_digest(root, (1, 2, 0)),
        page_digest(salt_digest("key"), (1, 2)),
        page_digest(page_digest(root, (1, 2)), (1, 2)),
    }
    assert len(digests) == 5
    assert page_digest(root, [1, 2]) == page_digest(root, (1, 2))


def test_releasing_what_nobody_holds_is_our_bug():
    with pytest.raises(AssertionError):
        PagePool(1, 4).release(0)


class Ledger(RuleBasedStateMachine):
    """The pool beside a ledger kept the slow way."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = PagePool(5, 4)
        self.holders = [0] * 5
        self.digests: dict[bytes, int] = {}
        self.idle: list[int] = []

    def held(self) -> list[int]:
        return [page for page, count in enumerate(self.holders) if count]

    @precondition(lambda self: not all(self.holders))
    @rule()
    def take(self) -> None:
        page = self.pool.take()
        assert self.holders[page] == 0
        if page in self.idle:
            assert len(self.idle) + len(self.held()) == 5, "an idle page went before a free one"
            assert self.idle.pop(0) == page
            self.digests = {d: p for d, p in self.digests.items() if p != page}
        self.holders[page] = 1

    @precondition(lambda self: self.digests)
    @rule(data=st.data())
    def share(self, data) -> None:
        digest = data.draw(st.sampled_from(sorted(self.digests)))
        page = self.pool.find(digest)
        assert page == self.digests[digest]
        self.pool.share(page)
        self.holders[page] += 1
        if page in self.idle:
            self.idle.remove(page)

    @precondition(lambda self: self.held())
    @rule(data=st.data(), digest=st.sampled_from([bytes([i]) for i in range(8)]))
    def index(self, data, digest) -> None:
        page = data.draw(st.sampled_from(self.held()))
        if digest in self.digests or page not in self.digests.values():
            self.pool.index(page, digest)
            self.digests.setdefault(digest, page)

    @precondition(lambda self: self.held())
    @rule(data=st.data())
    def release(self, data) -> None:
        page = data.draw(st.sampled_from(self.held()))
        self.pool.release(page)
        self.holders[page] -= 1
        if not self.holders[page] and page in self.digests.values():
            self.idle.append(page)

    @invariant()
    def agrees(self) -> None:
        assert self.pool.num_held == len(self.held())
        assert [p for p in range(5) if self.pool.is_idle(p)] == sorted(self.idle)
        assert all(self.pool.find(d) == p for d, p in self.digests.items())


Ledger.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
test_the_pool_agrees_with_a_ledger = Ledger.TestCase
