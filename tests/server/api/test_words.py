import math

import pytest

from model.step import Score
from server.api.surprisal import windows
from server.api.words import Told, find_words, word_nats
from tests.server.text.test_tokenizer import BYTE_LEVEL, SENTENCEPIECE


def words_of(text, tokenizer=BYTE_LEVEL):
    found = find_words(text, tokenizer.pieces(text, False, True), tokenizer)
    assert all(each.first < each.last for each in found)
    return [text[each.start : each.end] for each in found]


@pytest.mark.parametrize("tokenizer", [BYTE_LEVEL, SENTENCEPIECE])
@pytest.mark.parametrize(
    "text",
    ["hi hi", " hi  hi ", "hi\n\n\thi", "é 世界 😀.", "hi", " ", "x" * 40],
)
def test_words_are_what_white_space_separates(text, tokenizer):
    assert words_of(text, tokenizer) == text.split()


def test_a_special_token_is_a_word_by_itself():
    assert words_of("a b</s>c<s>") == ["a", "b", "</s>", "c", "<s>"]


def test_every_token_but_white_space_at_the_end_is_in_one_word():
    text = " one  two\nthree   "
    pieces = BYTE_LEVEL.pieces(text, False, True)
    found = find_words(text, pieces, BYTE_LEVEL)
    assert [each.first for each in found] == [0, *(each.last for each in found[:-1])]
    assert text[pieces[found[-1].last].start :].isspace()


def told(text, masses):
    pieces = BYTE_LEVEL.pieces(text, False, True)
    scores = [Score(piece.token, -1.0 - i, 1, 0.0) for i, piece in enumerate(pieces)]
    return [Told(p, s, 0.0, m) for p, s, m in zip(pieces, scores, masses, strict=True)]


def test_a_word_pays_for_its_end_and_not_for_its_beginning():
    text = "ab cd"
    tokens = told(text, [-0.1, -0.2, -0.4, -0.8, -1.6])
    first, second = find_words(text, [t.piece for t in tokens], BYTE_LEVEL)
    corrected, plain = word_nats(first, tokens, -3.2, BYTE_LEVEL)
    assert plain == 1 + 2
    assert corrected == pytest.approx(1 + 2 + 0.4)  # no word ended before it
    corrected, plain = word_nats(second, tokens, -3.2, BYTE_LEVEL)
    assert plain == 3 + 4 + 5
    assert corrected == pytest.approx(12 + 3.2 - 0.4)


def test_corrections_cancel_but_for_the_first_and_the_last():
    text = " ab cd e"
    tokens = told(text, [-0.1 * 2**i for i in range(8)])
    found = find_words(text, [t.piece for t in tokens], BYTE_LEVEL)
    corrected = math.fsum(word_nats(each, tokens, -7.0, BYTE_LEVEL)[0] for each in found)
    assert corrected == pytest.approx(sum(range(1, 9)) - 0.1 + 7.0)


def test_a_word_of_which_a_token_is_not_scored_has_no_surprisal():
    text = "ab cd"
    tokens = told(text, [None, -0.2, -0.4, -0.8, -1.6])
    tokens[0] = Told(tokens[0].piece)
    first, second = find_words(text, [t.piece for t in tokens], BYTE_LEVEL)
    assert word_nats(first, tokens, -1.0, BYTE_LEVEL) == (None, None)
    assert word_nats(second, tokens, None, BYTE_LEVEL) == (None, 12.0)


@pytest.mark.parametrize("num_tokens", [1, 2, 5, 6, 7, 20, 64])
@pytest.mark.parametrize(("window", "stride"), [(6, 3), (6, 5), (6, 6), (2, 1), (64, 32)])
def test_windows_score_each_token_once_with_what_precedes_it(num_tokens, window, stride):
    scored = []
    for begin, first, end in windows(num_tokens, window, stride):
        assert begin < end <= begin + window
        assert begin < first <= end
        scored += range(first, end)
        if begin:
            assert first - begin >= min(window - stride, 1)
    if stride < window:
        assert scored == list(range(1, num_tokens))
    else:  # as the guide's: the first token of each window is lost
        assert scored == [i for i in range(num_tokens) if i % window]
