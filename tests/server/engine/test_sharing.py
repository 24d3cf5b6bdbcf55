"""What sequences share: prefixes that are cached, and prefixes that are being run."""

from __future__ import annotations

import pytest

from model.step import Sampling
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


def test_the_last_prompt_token_always_runs_for_its_distribution():
    drive = Drive()
    for expected in (0, 16):  # not 20, though all five pages are there
        got = drive.add(request(distinct(1, 20)))
        drive.run()
        assert got.job.num_reused == expected


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
