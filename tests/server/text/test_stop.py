from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.text.stop import StopFinder, fallbacks

SHORT = st.text("ab\n", max_size=40)
STOPS = st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=4)


def run(parts, stops, is_included=False, armed_from=0):
    finder, out = StopFinder(stops, is_included), ""
    for i, part in enumerate(parts):
        released, stop = finder.push(part, is_armed=i >= armed_from)
        out += released
        if stop is not None:
            return out, stop
    return out + finder.finish(), None


def naive(text, stops):
    """The definition: the shortest prefix that a stop string ends, and the longest that does."""
    for end in range(1, len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            stop = max(found, key=len)
            return text[: end - len(stop)], stop
    return text, None


def split(text, cuts):
    places = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    return [text[a:b] for a, b in pairwise(places)]


@given(SHORT, STOPS, st.lists(st.integers(0, 40)))
def test_any_split_of_the_text_stops_where_the_definition_says(text, stops, cuts):
    assert run(split(text, cuts), stops) == naive(text, stops)


@given(SHORT, STOPS)
def test_nothing_is_held_back_that_cannot_become_a_stop_string(text, stops):
    finder, out = StopFinder(stops, False), ""
    for i, character in enumerate(text):
        released, stop = finder.push(character, is_armed=True)
        out += released
        if stop is not None:
            return
        held = text[len(out) : i + 1]
        assert held == "" or any(s.startswith(held) and s != held for s in stops)


def test_a_stop_string_over_three_parts_leaks_none_of_its_pieces():
    finder = StopFinder(["\n\nQ"], False)
    pushed = [finder.push(part, is_armed=True) for part in ("a\n", "\n", "Qb")]
    assert pushed == [("a", None), ("", None), ("", "\n\nQ")]


def test_what_was_held_back_is_given_out_when_it_becomes_no_stop_string():
    finder = StopFinder(["\n\nQ"], False)
    assert [finder.push(part, is_armed=True)[0] for part in ("a\n", "\nx")] == ["a", "\n\nx"]


def test_an_included_stop_string_ends_the_text():
    assert run(["say EN", "D now"], ["END"], is_included=True) == ("say END", "END")


def test_a_stop_string_completed_before_it_counts_is_ordinary_text():
    assert run(["aENDb", "cEND"], ["END"], armed_from=1) == ("aENDbc", "END")


def test_a_stop_string_begun_before_it_counts_and_completed_after_stops():
    assert run(["aEN", "Db"], ["END"], armed_from=1) == ("a", "END")


@pytest.mark.parametrize(
    ("stop", "expected"),
    [("a", [0]), ("aaba", [0, 1, 0, 1]), ("abab", [0, 0, 1, 2]), ("aaaa", [0, 1, 2, 3])],
)
def test_fallbacks_are_the_longest_borders(stop, expected):
    assert fallbacks(stop) == expected
