"""What sequences share: prefixes that are cached, and prefixes that are being run."""

from __future__ import annotations

import pytest

from model.step import Ask, Sampling
from tests.fakes import PageModel, alone
from tests.server.engine.drive import Drive, distinct, request


def test_a_prompt_asked_again_runs_only_its_tail():
    drive = Drive()
    prompt = distinct(1, 22)
    first = drive.add(request(prompt))
    drive.run()
    before = drive.model.num_tokens_run
    second = drive.add(request(prompt))
    drive.run()
    assert (first.job.num_reused, second.job.num_reused) == (0, 20)
    assert drive.model.num_tokens_run - before == 2 + 3  # the tail, and draws 2 to 4
    assert second.outcome() == first.outcome()


@pytest.mark.parametrize("max_tokens", [0, 1, 4])
def test_a_cached_prompt_that_ends_with_a_page_is_answered_without_running_a_token(max_tokens):
    drive = Drive()
    for expected in (0, 20):
        before = drive.model.num_tokens_run
        got = drive.add(request(distinct(1, 20), max_tokens, ask=Ask(top=2, summary=True)))
        drive.run()
        assert got.outcome() == alone(got.job.request)
        assert got.job.num_reused == expected
        num_drawn_from = max(0, max_tokens - 1)  # tokens drawn run, but for the last
        assert drive.model.num_tokens_run - before == 20 - expected + num_drawn_from


@pytest.mark.parametrize("length", range(17, 25))
def test_a_cached_prompt_runs_fewer_tokens_than_a_page_has(length):
    drive = Drive()
    for _ in range(2):
        before = drive.model.num_tokens_run
        drive.add(request(distinct(1, length), max_tokens=1))
        drive.run()
    assert drive.model.num_tokens_run - before == length % 4


def test_equal_prompts_that_end_with_a_page_run_once():
    drive = Drive()
    prompt, ask = distinct(1, 8), Ask(top=1)
    gathered = [drive.add(request(prompt, 3, ask=ask, sampling=Sampling(seed=i))) for i in range(5)]
    drive.run()
    assert [got.outcome() for got in gathered] == [alone(got.job.request) for got in gathered]
    assert drive.model.num_tokens_run == 8 + 5 * 2


def test_a_page_that_was_evicted_runs_again():
    drive = Drive(PageModel(num_pages=4))
    first = drive.add(request(distinct(1, 8), max_tokens=1))
    drive.run()
    drive.add(request(distinct(2, 12), max_tokens=1))  # takes one of the two
    drive.run()
    again = drive.add(request(distinct(1, 8), max_tokens=1))
    drive.run()
    assert again.job.num_reused == 4  # the end of a chain goes first
    assert again.outcome() == first.outcome()


def test_a_preempted_request_whose_pages_hold_all_its_tokens_goes_on_from_their_end():
    drive = Drive(PageModel(num_pages=8), speculates=False)
    leader = drive.add(request(distinct(1, 8), max_tokens=14))
    twin = drive.add(request(distinct(1, 8), max_tokens=14))
    while len(twin.job.tokens) < 16:
        drive.step()
    assert len(leader.job.tokens) == 17  # one step ahead: the page of the twin's last token is full
    drive.scheduler._preempt(twin.job)
    drive.scheduler.running.remove(twin.job)
    before = drive.model.num_tokens_run
    drive.step()
    assert drive.model.num_tokens_run - before == 1  # the leader's
    drive.run()
    assert [got.outcome() for got in (leader, twin)] == [alone(leader.job.request)] * 2


def test_generated_tokens_serve_the_next_turn_of_a_conversation():
    drive = Drive()
    first = drive.add(request(distinct(1, 6), max_tokens=11))
    drive.run()
    turn = drive.add(request((*first.job.tokens, 7, 7, 7)))
    drive.run()
    assert turn.job.num_reused == 16  # of 6 + 10 cached: the token drawn last never was


def test_another_salt_shares_nothing():
    drive = Drive()
    for salt in ("one key", "another"):
        got = drive.add(request(distinct(1, 20), cache_salt=salt))
        drive.run()
        assert got.job.num_reused == 0


def test_sixteen_requests_over_one_prefix_run_it_once():
    drive = Drive(PageModel(num_pages=200), max_batch=16, max_batch_tokens=64)
    prefix = distinct(1, 128)
    gathered = [drive.add(request((*prefix, i, i), max_tokens=3)) for i in range(16)]
    drive.run()
    assert drive.model.num_tokens_run == 128 + 16 * (2 + 2)
    assert [got.outcome() for got in gathered] == [alone(got.job.request) for got in gathered]


def test_n_samples_of_one_prompt_run_together_once_the_prompt_is_there():
    drive = Drive(max_batch_tokens=32)
    gathered = [
        drive.add(request(distinct(1, 30), sampling=Sampling(seed=i), max_tokens=8))
        for i in range(5)
    ]
    drive.step()
    assert drive.step() == 5
    drive.run()
    assert len({tuple(got.tokens) for got in gathered}) == 5
    assert drive.model.num_tokens_run == 28 + 5 * (2 + 7)


def test_those_behind_a_follower_need_not_wait_with_it():
    drive = Drive(max_batch_tokens=32)
    prompt = distinct(1, 20)
    drive.add(request(prompt))
    follower = drive.add(request(prompt))
    other = drive.add(request(distinct(2, 8)))
    drive.step()
    assert not follower.drawn
    assert other.drawn
    drive.step()
    assert follower.drawn


@pytest.mark.parametrize("end", ["cancel", "fail"])
def test_a_follower_goes_on_alone_when_its_leader_is_gone(end):
    drive = Drive(max_batch_tokens=8)
    leader, follower = [drive.add(request(distinct(1, 30))) for _ in range(2)]
    drive.step()
    if end == "cancel":
        drive.cancel(leader)
    else:
        drive.fail_step()
    drive.run()
    assert follower.outcome() == alone(follower.job.request)
    assert follower.job.num_reused == 8  # what the leader did is not lost


def test_a_row_holds_its_shared_pages_while_the_first_holder_leaves():
    drive = Drive(PageModel(num_pages=12), max_batch_tokens=32)
    first = drive.add(request(distinct(1, 20), max_tokens=9))
    second = drive.add(request((*distinct(1, 20), 3), max_tokens=9))
    drive.step()
    drive.step()
    drive.cancel(first)
    drive.add(request(distinct(5, 20), max_tokens=2))  # wants pages
    drive.run()
    assert second.outcome() == alone(second.job.request)
