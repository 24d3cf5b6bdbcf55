"""What is guessed, and how wrong guesses end guessing."""

from __future__ import annotations

from itertools import pairwise

from server.engine.drafts import MAX_PATIENCE, MOST, Drafts, max_drafts
from server.engine.job import Job
from tests.fakes import PageModel, alone
from tests.server.engine.drive import Drive, distinct, request


def test_what_followed_the_last_tokens_before_is_guessed_newest_first():
    assert Drafts().guess([1, 2, 3, 8, 1, 2, 3, 9, 5, 1, 2, 3], 1) == [9]
    assert Drafts().guess([1, 2, 3, 9, 5, 1, 2, 3], 7) == [9, 5]
    assert Drafts().guess([1, 2, 3, 4, 5, 6], 7) == []


def test_a_loop_is_guessed_to_go_on():
    drafts = Drafts()
    for size in (2, 4, 7, 7):
        guessed = drafts.guess([4, 5] * 4, MOST)
        assert guessed == ([4, 5] * 4)[:size]
        drafts.learn(8, len(guessed), len(guessed))


def test_tokens_that_came_since_are_found_too():
    drafts, tokens = Drafts(), [1, 2, 3, 4]
    assert drafts.guess(tokens, 2) == []
    tokens += [7, 8, 9, 1, 7, 8, 9]
    assert drafts.guess(tokens, 2) == [1, 7]


def test_who_is_never_right_guesses_ever_more_seldom():
    drafts, tokens, guesses = Drafts(), [1, 2, 3] * 3, []
    while len(tokens) < 600:
        guessed = drafts.guess(tokens, MOST)
        tokens += [1, 2, 3]
        if guessed:
            guesses.append(len(tokens))
            drafts.learn(len(tokens), len(guessed), 0)
    waits = [b - a for a, b in pairwise(guesses)]
    assert waits == sorted(waits)
    assert max(waits) < MAX_PATIENCE + 2 * 3  # three at a time, before and after
    assert len(guesses) < 600 / 3 / 8


def test_few_rows_share_what_reading_the_weights_pays_for():
    assert [max_drafts(n, 512) for n in (1, 2, 3, 4, 5, 32)] == [7, 3, 1, 1, 0, 0]
    assert max_drafts(1, 3) == 2
    assert max_drafts(3, 3) == 0


class Looping(PageModel):
    """Notes how many tokens its rows ran."""

    def step(self, rows):
        self.widths = [*getattr(self, "widths", []), *(len(row.tokens) for row in rows)]
        return super().step(rows)


def in_a_loop(monkeypatch, period=5):
    """Drawn is the token that stood `period` places before."""

    def draw(context, *_):
        return context[-period]

    monkeypatch.setattr("tests.fakes.draw", draw)


def test_a_text_that_repeats_itself_takes_a_fraction_of_the_steps(monkeypatch):
    in_a_loop(monkeypatch)
    steps = {}
    for speculates in (True, False):
        drive = Drive(Looping(), speculates=speculates)
        got = drive.add(request((1, 2, 3, 4, 5), max_tokens=64))
        drive.run()
        assert got.outcome() == alone(got.job.request)
        steps[speculates] = drive.model.num_steps
    assert steps[False] == 64
    assert steps[True] < 64 / 4


def test_an_end_token_among_right_guesses_ends_the_request_there(monkeypatch):
    in_a_loop(monkeypatch, period=12)
    drive = Drive(Looping())
    prompt = (*range(1, 13), 1, 2, 3)
    got = drive.add(request(prompt, max_tokens=64, stop_ids=frozenset({8})))
    drive.run()
    assert got.tokens == [4, 5, 6, 7, 8]
    assert got.outcome() == alone(got.job.request)
    assert drive.model.widths == [15, 3, 5]  # of the last four guesses the second was the end


def test_nothing_is_guessed_for_many(monkeypatch):
    in_a_loop(monkeypatch)
    drive = Drive(Looping(num_pages=200), max_batch_tokens=32)
    for i in range(6):
        drive.add(request((1, 2, 3, 4, 5 + i), max_tokens=40))
    drive.run()
    assert set(drive.model.widths) <= {1, 5}  # prompts and tokens


def test_as_much_is_guessed_beside_a_prompt_as_without_it(monkeypatch):
    in_a_loop(monkeypatch)
    num_steps = {}
    for length in (5, 200):
        drive = Drive(Looping(num_pages=200), max_batch_tokens=32)
        drive.max_long_tokens = 1
        got = drive.add(request((1, 2, 3, 4, 5), max_tokens=64))
        other = drive.add(request(distinct(2, length), max_tokens=1))
        while not got.endings:
            drive.step()
        num_steps[length] = drive.model.num_steps
        assert got.outcome() == alone(got.job.request)
        assert length == 5 or not other.endings
    assert num_steps[200] == num_steps[5] < 64 / 4


def test_guesses_leave_half_of_a_step_to_prompts(monkeypatch):
    """One row's seven guesses would fill a step of eight, and no prompt would ever start."""
    in_a_loop(monkeypatch)
    drive = Drive(Looping(num_pages=200), max_batch=2, max_batch_tokens=8)
    drive.add(request((1, 2, 3, 4, 5), max_tokens=200))
    for _ in range(10):
        drive.step()
    assert max(drive.model.widths) == 8
    other = drive.add(request(distinct(2, 40), max_tokens=1))
    for _ in range(10):
        drive.step()
    assert other.endings == ["length"]


def test_guesses_take_no_page_that_another_needs(monkeypatch):
    """Two that fill the pool between them: neither is preempted for the other's guesses."""
    in_a_loop(monkeypatch)
    drive = Drive(Looping(num_pages=10))
    for i in range(2):
        drive.add(request((1, 2, 3, 4, 5 + i), max_tokens=15))
    drive.run()
    assert drive.scheduler.num_preemptions == 0
    assert [got.outcome() for got in drive.gathered] == [
        alone(got.job.request) for got in drive.gathered
    ]


def test_who_is_penalised_or_constrained_does_not_guess():
    def may_draft(**more):
        job = Job(0, request(**more), 4)
        job.output.append(1)
        return job.may_draft

    sampling = request().sampling.__class__
    assert may_draft()
    assert not may_draft(sampling=sampling(repetition_penalty=1.1))
    assert not may_draft(sampling=sampling(presence_penalty=0.1))
    assert not may_draft(sampling=sampling(frequency_penalty=-0.1))
    assert not may_draft(min_tokens=3)
    assert not may_draft(constraint=object())
