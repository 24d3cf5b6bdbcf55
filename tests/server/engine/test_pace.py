from __future__ import annotations

import pytest

from server.engine.pace import START, Pace


def run(pace, steps, seconds_of, decode=0.04):
    """Mixed steps; each one's duration over a decoding one's."""
    ratios = []
    for i in range(steps):
        num_tokens = pace.max_long_tokens()
        seconds = decode + seconds_of(num_tokens, i)
        pace.observe(3, num_tokens, seconds)
        ratios.append(seconds / decode)
    return ratios


def test_the_first_chunk_is_short_whatever_prompts_alone_have_taught():
    pace = Pace(min_tokens=8)
    assert pace.max_long_tokens() == START
    pace.observe(0, 512, 1e-6)
    pace.observe(3, 0, 0.04)
    assert pace.max_long_tokens() == START


def test_a_clock_that_stands_still_changes_nothing_for_the_worse():
    pace = Pace(min_tokens=8)
    for _ in range(5):
        pace.observe(0, 100, 0.0)
        pace.observe(4, 0, 0.0)
        pace.observe(4, 100, 0.0)
    assert pace.max_long_tokens() >= START


def test_a_long_prompt_goes_on_at_least_at_the_stated_rate():
    pace = Pace(min_tokens=16)
    pace.observe(4, 0, 0.001)
    run(pace, 20, lambda n, i: 100.0)
    assert pace.max_long_tokens() == 16


@pytest.mark.parametrize(("decode", "token"), [(0.040, 0.001), (0.040, 0.0004), (0.200, 0.002)])
@pytest.mark.parametrize("is_known", [True, False])
def test_a_mixed_step_settles_below_twice_a_decoding_one(decode, token, is_known):
    """Known: a step has only decoded before. Else one comes between the prompts."""
    pace = Pace(min_tokens=4)
    if is_known:
        pace.observe(3, 0, decode)
    else:
        run(pace, 5, lambda n, i: n * token, decode)
        pace.observe(3, 0, decode)
    ratios = run(pace, 30, lambda n, i: n * token, decode)
    assert all(ratio < 2 for ratio in ratios)
    assert 1.6 < ratios[-1] < 1.8


def test_a_cost_that_grows_with_the_place_never_doubles_a_step():
    """Attention: the last token of a long prompt costs several times the first."""
    pace = Pace(min_tokens=4)
    pace.observe(3, 0, 0.04)
    ratios = run(pace, 200, lambda n, i: n * (0.0004 + 0.00002 * i))
    assert max(ratios) < 1.9
    assert min(ratios[10:]) > 1.5


def test_a_machine_that_slows_down_is_obeyed_within_two_steps():
    pace = Pace(min_tokens=4)
    pace.observe(3, 0, 0.04)
    ratios = run(pace, 40, lambda n, i: n * (0.0005 if i < 30 else 0.0015))
    assert ratios[30] > 2
    assert max(ratios[32:]) < 1.8


def test_the_last_tokens_of_a_prompt_teach_nothing():
    pace = Pace(min_tokens=4)
    pace.observe(3, 0, 0.04)
    run(pace, 20, lambda n, i: n * 0.0005)
    before = pace.max_long_tokens()
    pace.observe(3, 3, 0.08)
    assert pace.max_long_tokens() == before
