"""Continuations as a trie, run by the scheduler over pages that know their tokens."""

from __future__ import annotations

import random

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from server.api.trie import Trie, build_trie
from server.api.waves import Call, Outcome
from server.engine.request import Ending, Timings
from tests.fakes import PageModel, score
from tests.server.engine.drive import Drive

CALL = Call("score", "", timeout=1e9, wave_size=4)


def run(drive: Drive, trie: Trie, wave_size: int = 100) -> int:
    """As run_waves does. -> how many tokens the model ran."""
    before, work = drive.model.num_tokens_run, [trie.root()]
    while work:
        wave, work = work[:wave_size], work[wave_size:]
        gathered = [drive.add(branch.request("r", CALL)) for branch in wave]
        drive.run()
        for branch, got in zip(wave, gathered, strict=True):
            told = got.outcome()
            ending = Ending("length", Timings(0, 0, 0), got.job.num_reused)
            outcome = Outcome(list(told.scored), list(told.scored_reports), told.report, ending)
            work = [*branch.take(outcome), *work]
    return drive.model.num_tokens_run - before


def expected(trie: Trie) -> dict:
    return {
        path: [score(trie.context + path[:i], path[i]) for i in range(len(path))]
        for path in trie.paths
    }


def inner_nodes(trie: Trie) -> int:
    return len({path[:i] for path in trie.paths for i in range(1, len(path))})


paths = st.lists(st.integers(0, 2), min_size=1, max_size=9).map(tuple)


@settings(max_examples=400, deadline=None)
@given(st.integers(1, 11), st.lists(paths, min_size=1, max_size=30), st.integers(1, 6))
def test_every_continuation_is_scored_and_every_inner_node_is_run_once(length, texts, wave_size):
    """Whatever the place of the context's end in a page."""
    trie = build_trie(tuple(range(10, 10 + length)), texts)
    num_run = run(Drive(PageModel(num_pages=256)), trie, wave_size)
    assert trie.scores == expected(trie)
    assert num_run == length + inner_nodes(trie)
    event(f"parts: {inner_nodes(trie) > 3}")


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32))
def test_a_pool_that_keeps_nothing_costs_time_and_changes_no_score(seed):
    chance = random.Random(seed)
    texts = [tuple(chance.choices(range(3), k=chance.randint(1, 12))) for _ in range(20)]
    trie = build_trie(tuple(range(10, 10 + chance.randint(1, 9))), texts)
    drive = Drive(PageModel(num_pages=7), max_batch=3, max_batch_tokens=7)
    run(drive, trie)
    assert trie.scores == expected(trie)
    assert drive.pool.num_held == 0


def test_labels_of_one_token_are_one_row():
    trie = build_trie((1, 2, 3), [(i,) for i in range(40)])
    drive = Drive()
    assert run(drive, trie) == 3
    assert drive.model.num_steps == 1
    assert trie.scores == expected(trie)


def test_a_continuation_given_twice_is_run_once():
    trie = build_trie((1, 2), [(5, 6), (5, 6), (5,)])
    assert trie.paths == [(5,), (5, 6)]
    assert run(Drive(), trie) == 3


@pytest.mark.parametrize("num_tokens", [1, 2, 40])
def test_one_continuation_is_one_row_without_its_last_token(num_tokens):
    trie = build_trie((1, 2, 3), [tuple(i % 50 for i in range(num_tokens))])
    drive = Drive()
    assert run(drive, trie) == 3 + num_tokens - 1
    assert drive.model.num_steps == 1
    assert trie.scores == expected(trie)


def test_the_positions_of_the_context_are_not_scored():
    drive = Drive()
    run(drive, build_trie(tuple(range(30)), [(5, 6, 7)]))
    assert drive.model.num_positions_scored == 2  # the last is asked for beside
