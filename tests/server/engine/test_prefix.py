from __future__ import annotations

from model.step import Ask, Report, Score
from server.engine.job import Job
from server.engine.kept_scores import pack
from server.engine.pages import PagePool
from server.engine.prefix import PagesInStep, find_prefix, share_prefix
from server.engine.request import Request

PROMPT = tuple(range(10, 23))  # three full pages of 4, and one token


def job(prompt=PROMPT, prompt_ask: Ask | None = None) -> Job:
    return Job(0, Request(id="r", prompt=prompt, max_tokens=1, prompt_ask=prompt_ask), page_size=4)


def scores_of_page(page: int) -> list[Score]:
    return [Score(token, -float(token), 1, 0.5) for token in PROMPT[page * 4 + 1 : page * 4 + 5]]


def pool_with(num_pages: int, num_scored: int) -> PagePool:
    """One that has PROMPT's first pages, the first of them with scores."""
    pool, donor = PagePool(8, 4), job()
    for i in range(num_pages):
        page = pool.take()
        pool.index(page, donor.digest(i))
        pool.release(page)
        if i < num_scored:
            pool.keep_scores(donor.digest(i), pack(Ask(), scores_of_page(i), [Report()] * 4))
    return pool


def test_the_prefix_ends_where_tokens_or_pages_do():
    assert len(find_prefix(pool_with(3, 0), job())) == 3
    assert len(find_prefix(pool_with(2, 0), job())) == 2
    assert len(find_prefix(pool_with(3, 0), job(PROMPT[:12]))) == 3
    assert len(find_prefix(pool_with(3, 0), job(PROMPT[:11]))) == 2
    assert len(find_prefix(pool_with(3, 0), job((*PROMPT[:7], 99, *PROMPT[8:])))) == 1
    assert find_prefix(pool_with(3, 0), job((99, *PROMPT[1:]))) == []


def test_scores_come_with_the_pages_that_are_shared():
    pool, scoring = pool_with(3, 2), job(prompt_ask=Ask())
    found = find_prefix(pool, scoring)
    share_prefix(pool, scoring, found)
    assert (len(found), scoring.num_cached, scoring.num_scored) == (2, 8, 8)
    assert scoring.unsent_scores == scores_of_page(0) + scores_of_page(1)
    assert pool.num_held == 2


def test_a_prompt_that_ends_with_a_page_has_no_score_of_what_follows_it():
    pool, scoring = pool_with(3, 2), job(PROMPT[:8], prompt_ask=Ask())
    share_prefix(pool, scoring, find_prefix(pool, scoring))
    assert (scoring.num_cached, scoring.num_left, scoring.num_scored) == (8, 0, 7)
    assert scoring.unsent_scores == scores_of_page(0) + scores_of_page(1)[:3]


def test_a_resumed_job_takes_only_the_scores_it_has_not_sent():
    pool, resumed = pool_with(3, 2), job(prompt_ask=Ask())
    resumed.num_scored = 6
    share_prefix(pool, resumed, find_prefix(pool, resumed))
    assert resumed.unsent_scores == scores_of_page(1)[2:]
    assert len(resumed.unsent_reports) == 2


def test_a_job_whose_scores_are_all_sent_needs_pages_alone():
    pool, resumed = pool_with(3, 0), job(prompt_ask=Ask())
    resumed.num_scored = len(PROMPT) - 1
    assert len(find_prefix(pool, resumed)) == 3


def test_only_the_page_that_a_row_begins_with_is_waited_for():
    in_step, leader, follower = PagesInStep(), job(), job()
    leader.num_cached = 4
    in_step.add(leader)
    assert [in_step.serves(follower, page) for page in range(4)] == [False, True, False, False]


def test_a_page_that_its_row_cannot_fill_is_not_waited_for():
    in_step, leader = PagesInStep(), job(PROMPT[:6])
    leader.num_cached = 4
    in_step.add(leader)
    assert not in_step.serves(job(), 1)


def test_a_page_whose_next_token_is_not_known_gives_no_scores_to_wait_for():
    in_step, leader = PagesInStep(), job(PROMPT[:4], prompt_ask=Ask())
    in_step.add(leader)
    assert not in_step.serves(job(prompt_ask=Ask()), 0)
    assert in_step.serves(job(), 0)


def test_a_scoring_job_waits_for_scores_that_hold_all_it_wants_whatever_token_follows():
    in_step = PagesInStep()
    in_step.add(job(prompt_ask=Ask(top=1)))
    assert in_step.serves(job(prompt_ask=Ask()), 0)
    assert not in_step.serves(job(prompt_ask=Ask(top=2)), 0)
    assert in_step.serves(job((*PROMPT[:4], 99, *PROMPT[5:]), prompt_ask=Ask()), 0)
    assert in_step.serves(job((*PROMPT[:4], 99, *PROMPT[5:])), 0)
