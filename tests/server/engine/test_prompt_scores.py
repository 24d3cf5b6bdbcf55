"""Prompt scores beside the prefix cache."""

from __future__ import annotations

import pytest

from model.step import Ask
from tests.fakes import PageModel, alone
from tests.server.engine.drive import Drive, distinct, request


@pytest.mark.parametrize("max_batch_tokens", [5, 8, 11, 64])
def test_prompt_scores_are_the_same_however_the_prompt_is_chunked(max_batch_tokens):
    drive = Drive(max_batch=2, max_batch_tokens=max_batch_tokens)
    gathered = [
        drive.add(request(distinct(i, 29), prompt_ask=Ask(top=2, summary=True))) for i in range(2)
    ]
    drive.run()
    assert [got.outcome() for got in gathered] == [alone(got.job.request) for got in gathered]


def test_scores_kept_with_cached_pages_are_told_without_running_them():
    drive = Drive()
    ask = Ask(top=2, summary=True)
    for expected in (0, 28):
        before = drive.model.num_tokens_run
        got = drive.add(request(distinct(1, 30), max_tokens=0, prompt_ask=ask))
        drive.run()
        assert got.outcome() == alone(got.job.request)
        assert got.job.num_reused == expected
        assert drive.model.num_tokens_run - before == 30 - expected


def test_a_scored_prompt_that_ends_within_what_was_scored_runs_nothing():
    drive = Drive()
    drive.add(request(distinct(1, 30), max_tokens=0, prompt_ask=Ask(top=2)))
    drive.run()
    before = drive.model.num_tokens_run
    for first_scored in (1, 10, 14, 16):
        wanted = {"prompt_ask": Ask(top=1), "ask": Ask(top=3), "first_scored": first_scored}
        got = drive.add(request(distinct(1, 16), max_tokens=0, **wanted))
        drive.run()
        assert got.job.num_reused == 16
        assert got.outcome() == alone(got.job.request)
    assert drive.model.num_tokens_run == before


def test_another_token_after_a_cached_page_is_scored_without_running_the_page():
    drive = Drive()
    shared = distinct(1, 16)
    drive.add(request((*shared, 5, 6), max_tokens=0, prompt_ask=Ask()))
    drive.run()
    got = drive.add(request((*shared, 8, 9), max_tokens=0, prompt_ask=Ask()))
    drive.run()
    assert got.job.num_reused == 16
    assert got.outcome() == alone(got.job.request)


def test_where_another_request_cached_the_next_page_the_token_between_is_scored_all_the_same():
    drive = Drive()
    shared, other = distinct(1, 8), distinct(2, 8)
    drive.add(request((*shared, 5, 6), max_tokens=0, prompt_ask=Ask()))
    drive.add(request((*shared, *other, 7), max_tokens=0))
    drive.run()
    got = drive.add(request((*shared, *other, 7), max_tokens=0, prompt_ask=Ask()))
    drive.run()
    assert got.job.num_reused == 8
    assert got.outcome() == alone(got.job.request)


def test_pages_run_without_scores_serve_scoring_only_once_scored():
    drive = Drive()
    prompt = distinct(1, 20)
    for prompt_ask, expected in ((None, 0), (Ask(), 0), (Ask(), 16), (Ask(top=3), 0), (None, 20)):
        got = drive.add(request(prompt, prompt_ask=prompt_ask))
        drive.run()
        assert got.job.num_reused == expected
        assert got.outcome() == alone(got.job.request)


def test_many_continuations_of_one_prompt_are_scored_side_by_side():
    drive = Drive(PageModel(num_pages=200), max_batch=16, max_batch_tokens=128)
    shared = distinct(1, 100)  # ends with a page: what follows it is scored from its hidden state
    gathered = [
        drive.add(request((*shared, i, 1), max_tokens=0, prompt_ask=Ask(top=1))) for i in range(16)
    ]
    drive.run()
    assert [got.outcome() for got in gathered] == [alone(got.job.request) for got in gathered]
    assert drive.model.num_steps == 2
    assert drive.model.num_tokens_run == 102 + 15 * 2


def test_nobody_waits_for_scores_that_would_not_serve():
    drive = Drive(max_batch_tokens=64)
    prompt = distinct(1, 20)
    gathered = [drive.add(request(prompt, prompt_ask=Ask(top=top))) for top in (1, 1, 2)]
    drive.step()
    assert [len(got.drawn) for got in gathered] == [1, 0, 1]
    drive.run()
    assert [got.outcome() for got in gathered] == [alone(got.job.request) for got in gathered]


def test_a_preempted_scoring_request_tells_no_score_twice():
    drive = Drive(PageModel(num_pages=8), max_batch_tokens=6, max_batch=3)
    drive.add(request(distinct(1, 8), max_tokens=20))
    scoring = drive.add(request(distinct(2, 14), max_tokens=9, prompt_ask=Ask(top=1)))
    drive.run()
    assert drive.scheduler.num_preemptions > 0
    assert scoring.outcome() == alone(scoring.job.request)
