from __future__ import annotations

import pytest

from server.engine.pace import Pace


def test_nothing_is_paced_before_both_durations_are_known():
    pace = Pace(min_tokens=16)
    assert pace.max_long_tokens() is None
    pace.observe(0, 100, 1.0)
    assert pace.max_long_tokens() is None
    pace.observe(4, 0, 0.5)
    assert pace.max_long_tokens() == 40  # 0.8 of 0.5 s, at 0.01 s a token


def test_a_clock_that_stands_still_paces_nothing():
    pace = Pace(min_tokens=16)
    pace.observe(0, 100, 0.0)
    pace.observe(4, 0, 0.0)
    assert pace.max_long_tokens() is None


def test_a_long_prompt_goes_on_at_least_at_the_stated_rate():
    pace = Pace(min_tokens=16)
    pace.observe(0, 100, 100.0)
    pace.observe(4, 0, 0.001)
    assert pace.max_long_tokens() == 16


@pytest.mark.parametrize(("decode", "token"), [(0.040, 0.001), (0.040, 0.0004), (0.200, 0.002)])
@pytest.mark.parametrize("first_guess", [0.1, 10.0])
def test_a_mixed_step_settles_below_twice_a_decoding_one(decode, token, first_guess):
    pace = Pace(min_tokens=4)
    pace.observe(0, 512, 512 * token * first_guess)
    pace.observe(3, 0, decode)
    for _ in range(30):
        num_tokens = pace.max_long_tokens()
        pace.observe(3, num_tokens, decode + num_tokens * token)
    assert 1.6 * decode < decode + pace.max_long_tokens() * token < 2 * decode
