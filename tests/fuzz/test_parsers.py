import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.examples import examples
from tests.fuzz.parsers import TARGETS

BYTES = st.binary(min_size=1, max_size=8) | st.sampled_from(
    [b"\0" * 8, b"\xff" * 8, b"\x7f" + b"\xff" * 7, b"\r\n", b'"', b"{", b"[", b"\\ud800", b"1e999"]
)

EDITS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 8), BYTES), min_size=1, max_size=4)


@pytest.fixture(scope="module")
def given_examples(tmp_path_factory):
    """A function of a target's name: hypothesis shows a test's arguments, and these are large."""
    made = examples(tmp_path_factory.mktemp("examples"))
    return lambda name: made[name]


@pytest.mark.parametrize("name", TARGETS)
def test_a_parser_takes_its_examples(given_examples, name):
    is_taken = [TARGETS[name](example) for example in given_examples(name)]
    assert all(is_taken) or name == "shard_index"  # whose shards are not there


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(which=st.integers(0, 9), edits=EDITS)
def test_a_parser_takes_or_refuses_whatever_becomes_of_an_example(
    given_examples, name, which, edits
):
    choices = given_examples(name)
    changed = bytearray(choices[which % len(choices)])
    for place, length, new in edits:
        at = int(place * len(changed))
        changed[at : at + length] = new
    assert TARGETS[name](bytes(changed)) in (True, False)


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=40, deadline=None)
@given(data=st.binary(max_size=300))
def test_a_parser_takes_or_refuses_any_bytes(name, data):
    assert TARGETS[name](data) in (True, False)
