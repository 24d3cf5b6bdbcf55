from __future__ import annotations

import pytest

from model.step import Ask
from server.engine.pages import PagePool
from server.engine.scheduler import Scheduler
from tests.fakes import PageModel, alone
from tests.server.engine.drive import Drive, distinct, request


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
    third = outcome.drawn[2].token
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


def test_a_step_may_leave_long_prompts_out_and_says_where_they_stand():
    drive = Drive(PageModel(num_pages=100), max_batch_tokens=32)
    asked = []

    def limit(num_drafts, start):
        asked.append((num_drafts, start))
        return 4 * (len(asked) % 2)

    drive.add(request(max_tokens=9))
    drive.step()
    drive.add(request(distinct(2, 90)))
    sizes = []
    for _ in range(4):
        sizes.append([len(row.tokens) for row in drive.scheduler.schedule(limit)])
        drive.scheduler.commit(drive.model.step([row for _, row in drive.scheduler._step]))
    assert sizes == [[1, 4], [1], [1, 4], [1]]
    assert asked == [(0, 0), (0, 4), (0, 4), (0, 8)]


def test_long_prompts_share_one_pace():
    drive = Drive(PageModel(num_pages=100), max_batch_tokens=32)
    drive.max_long_tokens = 10
    drive.add(request(max_tokens=9))
    drive.step()
    for i in (2, 3):
        drive.add(request(distinct(i, 90)))
    assert [len(row.tokens) for row in drive.schedule()] == [1, 8, 2]


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
