from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from server.text.detokenize import Detokenizer


def run(parts):
    detokenizer = Detokenizer()
    return "".join(map(detokenizer.push, parts)) + detokenizer.finish()


@given(st.binary(max_size=40), st.lists(st.integers(0, 40)))
@example("é世😀".encode(), [1, 3, 4, 6, 7, 8])
@example(b"\xf0\x9f\x92\xc3\xa9\xe4\xb8", [2, 4])
def test_any_split_of_any_bytes_gives_the_text_of_the_whole(data, cuts):
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    parts = [data[a:b] for a, b in pairwise(places)]
    assert run(parts) == data.decode("utf-8", "replace")


@given(st.text(max_size=20))
def test_a_character_comes_with_its_last_byte_and_not_before(text):
    detokenizer, out = Detokenizer(), ""
    for byte in text.encode():
        out += detokenizer.push(bytes([byte]))
        assert text.startswith(out)
    assert out == text


def test_bytes_that_never_become_a_character_are_told_at_the_end():
    detokenizer = Detokenizer()
    assert detokenizer.push(b"a\xe4\xb8") == "a"
    assert detokenizer.finish() == "\ufffd"
