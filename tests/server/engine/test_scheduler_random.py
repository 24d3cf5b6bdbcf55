"""Thousands of random histories: every request comes to what it comes to alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from model.step import Ask, Sampling
from server.engine.request import Request
from tests.fakes import PageModel, alone, draw, number
from tests.server.engine.drive import Drive

VOCAB = 7

# Two symbols make shared prefixes likely; the tails make them differ at every place in a page.
prompts = st.lists(st.integers(0, 1), min_size=1, max_size=14).map(tuple)
asks = st.sampled_from(
    (Ask(), Ask(top=1), Ask(top=3), Ask(top=VOCAB + 2, summary=True), Ask(ids=(1, 4)), Ask(top=40))
)
plain_requests = st.builds(
    Request,
    id=st.just("r"),
    prompt=prompts,
    max_tokens=st.integers(0, 9),
    sampling=st.builds(Sampling, seed=st.integers(0, 1)),
    ask=st.none() | asks,
    prompt_ask=st.none() | asks,
    stop_ids=st.frozensets(st.integers(0, VOCAB - 1), max_size=1),
    min_tokens=st.integers(0, 4),
    cache_salt=st.sampled_from(("", "other")),
)
requests = st.builds(  # some say that a part of their prompt is known: most often it is not
    lambda request, first: replace(request, first_scored=min(first, len(request.prompt))),
    plain_requests,
    st.sampled_from((1, 1, 2, 4, 6, 11)),
)
acts = st.one_of(
    requests,
    requests,
    requests,
    st.sampled_from(("step", "step", "step", "step", "fail", "pace", "no pace")),
    st.integers(0, 20),  # cancels that request, if there is one
)


@st.composite
def drives(draw) -> Drive:
    page_size = draw(st.integers(1, 4))
    num_pages = -(-22 // page_size) + draw(st.integers(0, 4))  # any one request fits
    max_batch = draw(st.integers(1, 6))
    max_batch_tokens = max_batch + draw(st.integers(0, 12))
    return Drive(PageModel(num_pages, page_size, VOCAB), max_batch, max_batch_tokens)


def act(drive: Drive, what: Request | str | int) -> None:
    if isinstance(what, Request):
        drive.add(what)
    elif isinstance(what, int):
        if what < len(drive.gathered):
            drive.cancel(drive.gathered[what])
    elif what == "fail":
        drive.fail_step()
    elif what == "step":
        drive.step()
    else:
        drive.max_long_tokens = 1 if what == "pace" else None


def check_history(drive, crowd, history) -> None:
    for what in (*crowd, *history):
        act(drive, what)
    work = [len(got.job.request.prompt) + got.job.request.max_tokens for got in drive.gathered]
    drive.run(max_steps=1 + (1 + len(work)) * sum(work))  # the oldest that runs gains each step
    assert drive.pool.num_held == 0
    for got in drive.gathered:
        expected = alone(got.job.request, VOCAB)
        assert len(got.endings) == 1
        if got.endings[0] in ("cancelled", "failed"):
            assert got.is_a_beginning_of(expected)
        else:
            assert got.outcome() == expected
    event(f"preempted: {drive.scheduler.num_preemptions > 0}")
    event(f"a guess was right: {drive.num_right > 0}")
    event(f"a guess was right beside a prompt: {drive.num_right_beside > 0}")
    event(f"reused: {any(got.job.num_reused for got in drive.gathered)}")


@settings(max_examples=1500, deadline=None, suppress_health_check=list(HealthCheck))
@given(drives(), st.lists(requests, min_size=3, max_size=8), st.lists(acts, max_size=40))
def test_whatever_happens_every_request_ends_once_as_it_does_alone(drive, crowd, history) -> None:
    check_history(drive, crowd, history)


def draw_a_repetition(context, seed, index, banned, vocab_size) -> int:
    """Mostly: guesses are right at times, and at others not."""
    if len(context) > 2 and context[-3] not in banned and number(context, seed) % 8:
        return context[-3]
    return draw(context, seed, index, banned, vocab_size)


@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(drives(), st.lists(requests, min_size=3, max_size=8), st.lists(acts, max_size=40))
def test_texts_that_repeat_themselves_are_what_they_are_alone(drive, crowd, history) -> None:
    """Guesses beside prompts, preempted, cancelled and failed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.fakes.draw", draw_a_repetition)
        check_history(drive, crowd, history)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(1, 3), st.integers(0, 3), st.lists(st.integers(4, 16), min_size=2, max_size=5))
def test_no_score_is_told_twice_or_lost_when_its_prompt_is_preempted(page_size, spare, lengths):
    """Small chunks, and an old request that takes page after page from those who still score."""
    drive = Drive(PageModel(-(-20 // page_size) + spare, page_size, VOCAB), 6, 7)
    drive.add(Request(id="r", prompt=(5,), max_tokens=20))
    for i, length in enumerate(lengths):
        prompt = tuple((i + j) % VOCAB for j in range(length))
        drive.add(Request(id="r", prompt=prompt, max_tokens=4, prompt_ask=Ask(top=1)))
    drive.run()
    event(f"preempted: {drive.scheduler.num_preemptions > 0}")
    assert [got.outcome() for got in drive.gathered] == [
        alone(got.job.request, VOCAB) for got in drive.gathered
    ]


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(drives(), st.lists(requests, min_size=2, max_size=12))
def test_under_pressure_nobody_is_dropped_and_pages_serve_again(drive, batch) -> None:
    for _ in range(2):  # the second time on what the first left in the cache
        for request in batch:
            drive.add(request)
        drive.run()
    assert [got.outcome() for got in drive.gathered] == 2 * [alone(r, VOCAB) for r in batch]
    assert drive.pool.num_held == 0
    assert drive.pool.num_available == drive.pool.num_pages
