from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.step import Ask, Report, Score
from server.engine.kept_scores import MAX_KEPT_TOP, covers, is_keepable, pack

floats = st.floats(allow_nan=False)
scores = st.builds(Score, st.integers(0, 300_000), floats, st.integers(1, 300_000), floats)


@given(st.data(), st.integers(1, 5), st.integers(0, 4), st.booleans())
def test_what_is_unpacked_is_what_was_packed_bit_for_bit(data, num_targets, num_top, summary):
    ask = Ask(top=num_top, summary=summary)
    targets = data.draw(st.lists(scores, min_size=num_targets, max_size=num_targets))
    tops = st.lists(scores, min_size=num_top, max_size=num_top).map(tuple)
    pairs = floats if summary else st.none()
    reports = [
        Report(top=data.draw(tops), entropy=data.draw(pairs), logsumexp=data.draw(pairs))
        for _ in targets
    ]
    assert pack(ask, targets, reports).unpack(ask) == (targets, reports)


def test_a_smaller_ask_gets_exactly_its_share():
    alternatives = tuple(Score(i, -float(i), i + 1, 1.5) for i in range(3))
    targets = [Score(7, -math.inf, 9, -2.0)]
    kept = pack(Ask(top=3, summary=True), targets, [Report(alternatives, (), 0.25, 4.0)])
    assert kept.unpack(Ask(top=1)) == (targets, [Report(alternatives[:1])])
    assert kept.unpack(Ask(summary=True)) == (targets, [Report((), (), 0.25, 4.0)])


def test_a_vocabulary_smaller_than_the_ask_is_no_obstacle():
    alternatives = (Score(0, -0.1, 1, 0.0), Score(1, -2.0, 2, 0.0))
    kept = pack(Ask(top=20), [Score(1, -2.0, 2, 0.0)], [Report(alternatives)])
    assert kept.unpack(Ask(top=10))[1] == [Report(alternatives)]


def test_what_was_kept_covers_what_asks_for_no_more():
    assert covers(Ask(top=1), Ask())
    assert not covers(Ask(top=1), Ask(top=2))
    assert not covers(Ask(top=1), Ask(summary=True))


@pytest.mark.parametrize(
    "ask", [Ask(is_processed=True), Ask(ids=(3,)), Ask(full=True), Ask(top=MAX_KEPT_TOP + 1)]
)
def test_what_would_be_large_or_processed_is_not_kept(ask):
    assert not is_keepable(ask)
    assert not covers(Ask(top=MAX_KEPT_TOP, summary=True), ask)


def test_a_token_keeps_at_most_the_stated_bytes():
    alternatives = (Score(0, -0.1, 1, 0.0),) * MAX_KEPT_TOP
    ask = Ask(top=MAX_KEPT_TOP, summary=True)
    kept = pack(ask, [alternatives[0]], [Report(alternatives, (), 1.0, 1.0)])
    assert len(kept.scores) + len(kept.summaries) <= 690
