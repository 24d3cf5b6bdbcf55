from __future__ import annotations

import pytest

from model.step import Ask, Sampling
from server.engine.pages import PagePool
from server.engine.request import Request
from server.engine.scheduler import Scheduler
from tests.fakes import PageModel, alone
from tests.server.engine.drive import Drive


def request(prompt=(1, 2, 3, 4, 5), max_tokens=4, **more) -> Request:
    return Request(id="r", prompt=tuple(prompt), max_tokens=max_tokens, **more)


def distinct(number: int, length: int) -> tuple[int, ...]:
    return tuple((number * 7 + i) % 50 for i in range(length))


def test_one_request_comes_to_what_the_naive_loop_comes_to():
    drive = Drive()
    got = drive.add(request(max_tokens=20, ask=Ask(top=2)))
    drive.run()
    assert got.outcome() == alone(got.job.request)


def test_decoding_rows_come_before_prompt_chunks_in_every_step():
    drive = Drive(max_batch_tokens=8)
    first = drive.add(request(max_tokens=20))
    drive.step()
    drive.add(request(distinct(3, 30)))
    for _ in range(4):
        rows = drive.schedule()
        assert [row.output is first.job.output for row in rows] == [True, False]
        assert [len(row.tokens) for row in rows] == [1, 4]  # 7 left; a chunk ends with a page
        drive.scheduler.commit(drive.model.step(rows))


def test_a_prompt_chunk_with_more_to_come_draws_and_reports_nothing():
    drive = Drive(max_batch_tokens=8)
    drive.add(request(distinct(1, 20), ask=Ask(top=1)))
    (row,) = drive.schedule()
    assert (row.sampling, row.ask) == (None, None)


def test_prompts_are_run_first_come_first_served():
    drive = Drive(max_batch_tokens=16)
    older, younger = drive.add(request(distinct(1, 40))), drive.add(request(distinct(2, 4)))
    drive.step()
    drive.step()
    assert not older.drawn
    assert not younger.drawn
    drive.step()
    assert older.drawn
    assert younger.drawn


def test_no_more_than_max_batch_run_at_once():
    drive = Drive(max_batch=2)
    gathered = [drive.add(request(distinct(i, 5), max_tokens=2)) for i in range(5)]
    drive.step()
    assert len(drive.scheduler.running) == 2
    drive.run()
    assert all(got.endings == ["length"] for got in gathered)


def test_a_step_must_have_room_for_a_whole_batch_of_decoding_rows():
    with pytest.raises(ValueError, match="max_batch_tokens 3 is less than max_batch 4"):
        Scheduler(PagePool(4, 4), max_batch=4, max_batch_tokens=3)


# Endings


def test_a_stop_id_ends_the_request_and_is_its_last_token():
    outcome = alone(request(max_tokens=20))
    third = outcome.drawn[2].drawn.token
    drive = Drive()
    got = drive.add(request(max_tokens=20, stop_ids=frozenset({third})))
    drive.run()
    assert got.outcome().reason == "stop"
    assert got.stop_id == third == got.tokens[-1]


def test_stop_ids_cannot_be_drawn_before_min_tokens():
    stop_ids = frozenset(range(49))  # of 50: every draw but one would stop
    drive = Drive()
    got = drive.add(request(max_tokens=20, min_tokens=6, stop_ids=stop_ids))
    drive.run()
    assert got.tokens[:6] == [49] * 6
    assert got.outcome() == alone(got.job.request)


def test_max_tokens_zero_runs_the_prompt_and_draws_nothing():
    drive = Drive()
    got = drive.add(request(max_tokens=0, prompt_ask=Ask(top=1)))
    drive.run()
    assert got.endings == ["length"]
    assert got.drawn == []
    assert got.scored == list(alone(got.job.request).scored)


def test_a_prompt_of_one_token_has_no_scores_and_draws():
    drive = Drive()
    got = drive.add(request(prompt=(3,), max_tokens=2, prompt_ask=Ask()))
    drive.run()
    assert (len(got.drawn), got.scored) == (2, [])


# Sharing


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


# Pressure


def test_the_youngest_is_preempted_and_resumes_as_if_nothing_had_been():
    drive = Drive(PageModel(num_pages=8))
    gathered = [drive.add(request(distinct(i, 8), max_tokens=18)) for i in range(2)]
    drive.run()
    assert drive.scheduler.num_preemptions > 0
    assert [got.outcome() for got in gathered] == [alone(got.job.request) for got in gathered]
    assert gathered[1].job.num_reused == 0  # what it finds of its own is no prefix hit


def test_one_request_may_fill_the_whole_pool():
    drive = Drive(PageModel(num_pages=8))
    got = drive.add(request(distinct(1, 20), max_tokens=13))  # 32 tokens in pages, one not
    other = drive.add(request(distinct(2, 5), max_tokens=10))
    drive.run()
    assert got.outcome() == alone(got.job.request)
    assert other.outcome() == alone(other.job.request)


def test_the_oldest_is_never_preempted():
    drive = Drive(PageModel(num_pages=9), max_batch=4)
    gathered = [drive.add(request(distinct(i, 6), max_tokens=25)) for i in range(4)]
    drive.step()
    while drive.scheduler.running:
        oldest = gathered[drive.scheduler.running[0].ticket]
        drive.step()
        assert oldest.endings or oldest.job is drive.scheduler.running[0]
        if oldest.endings:
            drive.step()  # the next one starts
    assert drive.scheduler.num_preemptions > 0
    assert all(got.endings == ["length"] for got in gathered)


def test_a_large_request_is_not_overtaken_for_ever_by_small_ones():
    drive = Drive(PageModel(num_pages=10))
    first = drive.add(request(distinct(1, 8), max_tokens=6))
    large = drive.add(request(distinct(2, 36), max_tokens=2))
    for i in range(40):
        drive.add(request(distinct(10 + i, 4), max_tokens=2 + i % 5))  # never all done at once
    while not first.endings:
        drive.step()
    drive.step()
    assert large.drawn
    drive.run()


def test_admission_leaves_a_page_to_each_that_runs():
    drive = Drive(PageModel(num_pages=4))
    first, second = [drive.add(request(distinct(i, 8), max_tokens=5)) for i in (1, 2)]
    drive.run()  # 4 pages hold both prompts, but then neither could go on
    assert drive.scheduler.num_preemptions == 0
    assert first.endings == second.endings == ["length"]


def test_idle_pages_give_way_to_new_prompts_the_oldest_first():
    drive = Drive(PageModel(num_pages=10))
    for i in (1, 2):
        drive.add(request(distinct(i, 17), max_tokens=1))
        drive.run()
    third = drive.add(request(distinct(3, 13), max_tokens=1))
    drive.run()
    assert third.outcome() == alone(third.job.request)
    newer, older = [drive.add(request(distinct(i, 17), max_tokens=1)) for i in (2, 1)]
    drive.run()
    assert (newer.job.num_reused, older.job.num_reused) == (16, 8)


@pytest.mark.parametrize("num_steps", [0, 1, 2, 3, 4, 5, 9])
def test_cancelling_frees_row_and_pages_at_once_in_every_phase(num_steps):
    drive = Drive(max_batch_tokens=8)
    others = [drive.add(request(distinct(1, 6), max_tokens=12))]
    got = drive.add(request(distinct(2, 20), max_tokens=20))  # queued, prompt, decoding
    others.append(drive.add(request((*distinct(2, 20), 9), max_tokens=12)))
    for _ in range(num_steps):
        drive.step()
    drive.cancel(got)
    assert got.job not in drive.scheduler.running + drive.scheduler.waiting
    assert got.job.pages == []
    drive.run()
    assert drive.pool.num_held == 0
    assert [each.outcome() for each in others] == [alone(each.job.request) for each in others]


# Pacing


def test_a_long_prompt_is_paced_only_beside_decoding_rows():
    drive = Drive(PageModel(num_pages=100), max_batch_tokens=32)
    drive.max_long_tokens = 4
    first = drive.add(request(max_tokens=5))
    drive.step()
    drive.add(request(distinct(2, 90), max_tokens=1))
    assert [len(row.tokens) for row in drive.schedule()] == [1, 4]
    drive.cancel(first)
    assert [len(row.tokens) for row in drive.schedule()] == [32]


def test_a_short_prompt_runs_past_a_paced_one():
    drive = Drive(PageModel(num_pages=100), max_batch_tokens=32)
    drive.max_long_tokens = 4
    drive.add(request(max_tokens=9))
    drive.step()
    drive.add(request(distinct(2, 90)))
    drive.add(request(distinct(3, 90)))
    short = drive.add(request(distinct(4, 12)))
    drive.step()
    assert short.drawn
    drive.run()


# Prompt scores and the cache


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


def test_a_page_is_scored_again_for_another_next_token_and_no_page_before_it():
    drive = Drive()
    shared = distinct(1, 16)
    drive.add(request((*shared, 5, 6), max_tokens=0, prompt_ask=Ask()))
    drive.run()
    got = drive.add(request((*shared, 8, 9), max_tokens=0, prompt_ask=Ask()))
    drive.run()
    assert got.job.num_reused == 12
    assert got.outcome() == alone(got.job.request)


def test_pages_run_without_scores_serve_scoring_only_once_scored():
    drive = Drive()
    prompt = distinct(1, 20)
    for prompt_ask, expected in ((None, 0), (Ask(), 0), (Ask(), 16), (Ask(top=3), 0), (None, 16)):
        got = drive.add(request(prompt, prompt_ask=prompt_ask))
        drive.run()
        assert got.job.num_reused == expected
        assert got.outcome() == alone(got.job.request)


def test_many_continuations_of_one_prompt_are_scored_side_by_side():
    drive = Drive(PageModel(num_pages=200), max_batch=16, max_batch_tokens=128)
    shared = distinct(1, 100)  # ends with a page: each continuation scores that page itself
    gathered = [
        drive.add(request((*shared, i, 1), max_tokens=0, prompt_ask=Ask(top=1))) for i in range(16)
    ]
    drive.run()
    assert [got.outcome() for got in gathered] == [alone(got.job.request) for got in gathered]
    assert drive.model.num_steps == 2
    assert drive.model.num_tokens_run == 102 + 15 * (4 + 2)


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


# A runner that breaks its word


@pytest.mark.parametrize(
    "spoil",
    [
        lambda answers: answers[:-1],
        lambda answers: [answers[0].__class__() for _ in answers],
        lambda answers: [
            a.__class__(a.drawn, a.report, a.scored[1:], a.scored_reports) for a in answers
        ],
    ],
)
def test_an_answer_that_is_not_what_was_asked_for_changes_nothing(spoil):
    drive = Drive()
    got = drive.add(request(prompt_ask=Ask()))
    answers = drive.model.step(drive.schedule())
    with pytest.raises(RuntimeError):
        drive.scheduler.commit(spoil(answers))
    assert got.job.num_cached == 0
    assert drive.scheduler.fail() == [got.job]
    assert drive.pool.num_held == 0
