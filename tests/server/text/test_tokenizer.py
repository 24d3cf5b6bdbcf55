import threading
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from server.text.tokenizer import TextTokenizer, character_of_byte
from tests.scripted import BOS, EOS, VOCAB_SIZE, byte_tokenizer

BYTE_LEVEL = TextTokenizer(byte_tokenizer(), VOCAB_SIZE)


def sentencepiece():
    """Gemma's kind: bytes where nothing else fits, a space as U+2581, no space put in front."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256))]
    pieces += ["\u2581", "h", "i", "hi", "\u2581hi", "é"]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={piece: i for i, piece in enumerate(pieces)},
            merges=[("h", "i"), ("\u2581", "hi")],
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.add_tokens([AddedToken("\u2581\u2581", normalized=False)])
    return TextTokenizer(tokenizer, 300)


SENTENCEPIECE = sentencepiece()


@given(st.text())
def test_token_bytes_of_a_byte_level_vocabulary_add_up_to_the_text(text):
    ids = BYTE_LEVEL.encode(text, add_special_tokens=False, parse_special=False)
    assert b"".join(map(BYTE_LEVEL.token_bytes, ids)) == text.encode()


@given(st.text(st.characters(exclude_characters="\u2581", exclude_categories=["Cs"])))
def test_token_bytes_of_a_sentencepiece_vocabulary_add_up_to_the_text(text):
    ids = SENTENCEPIECE.encode(text, add_special_tokens=False, parse_special=False)
    assert b"".join(map(SENTENCEPIECE.token_bytes, ids)) == text.encode()


@pytest.mark.parametrize("tokenizer", [BYTE_LEVEL, SENTENCEPIECE], ids=["bytes", "pieces"])
@given(text=st.text(st.characters(exclude_characters="\u2581", exclude_categories=["Cs"])))
def test_pieces_cover_the_text_in_order_and_each_holds_its_own_characters(tokenizer, text):
    pieces = tokenizer.pieces(text, add_special_tokens=False, parse_special=False)
    reached = 0
    for piece in pieces:
        assert piece.start <= reached <= piece.end
        reached = piece.end
        assert tokenizer.token_bytes(piece.token) in text[piece.start : piece.end].encode()
    assert reached == len(text)


def test_every_token_of_a_split_character_is_at_that_character():
    pieces = BYTE_LEVEL.pieces("a世", add_special_tokens=True, parse_special=True)
    places = [(piece.start, piece.end) for piece in pieces]
    assert places == [(0, 0), (0, 1), (1, 2), (1, 2), (1, 2)]
    assert pieces[0].token == BOS


def test_places_fall_back_to_the_tokenizers_own_where_normalising_changed_the_text():
    tokenizer = byte_tokenizer()
    tokenizer.normalizer = normalizers.Lowercase()
    pieces = TextTokenizer(tokenizer, VOCAB_SIZE).pieces("AB", False, True)
    assert [(p.token, p.start, p.end) for p in pieces] == [(97, 0, 1), (98, 1, 2)]


def test_special_text_is_one_token_only_where_it_may_be():
    assert BYTE_LEVEL.encode("a</s>", False, parse_special=True) == [97, EOS]
    assert BYTE_LEVEL.encode("a</s>", False, parse_special=False) == [97, *b"</s>"]
    assert BYTE_LEVEL.encode("a</s>", False, parse_special=True) == [97, EOS]


def test_special_tokens_are_spelled_but_not_shown():
    assert BYTE_LEVEL.token_text(EOS) == "</s>"
    assert BYTE_LEVEL.visible_bytes(EOS) == b""
    assert BYTE_LEVEL.decode([97, EOS]) == "a</s>"


def test_a_padded_id_has_no_bytes():
    assert BYTE_LEVEL.token_bytes(VOCAB_SIZE - 1) == b""


def test_an_added_token_of_spaces_has_the_bytes_of_spaces():
    [token] = SENTENCEPIECE.encode("\u2581\u2581", False, True)
    assert SENTENCEPIECE.token_bytes(token) == b"  "
    assert SENTENCEPIECE.token_bytes(SENTENCEPIECE.tokenizer.token_to_id("<0xE4>")) == b"\xe4"


def test_no_token_is_longer_than_the_bound():
    for tokenizer in (BYTE_LEVEL, SENTENCEPIECE):
        longest = max(len(tokenizer.token_bytes(token)) for token in range(tokenizer.vocab_size))
        assert longest <= tokenizer.max_token_bytes


def test_encoding_lets_other_threads_run():
    """`Tokenizer.encode` keeps the interpreter lock: one long prompt would hold up every client."""
    tokenizer = byte_tokenizer()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    text = TextTokenizer(tokenizer, VOCAB_SIZE)
    ticks, done = [time.monotonic()], threading.Event()

    def tick():
        while not done.wait(0.001):
            ticks.append(time.monotonic())

    ticking = threading.Thread(target=tick)
    ticking.start()
    before = time.monotonic()
    text.encode("hello world " * 40_000, False, True)
    took = time.monotonic() - before
    done.set()
    ticking.join()
    longest = max(b - a for a, b in pairwise(ticks))
    assert longest < took / 2


def test_a_short_text_is_encoded_at_once_or_not_at_all():
    """The event loop asks so: it must never wait for a long text that another thread encodes."""
    for text, special in (("<s>ab", True), ("<s>ab", False), ("", True)):
        expected = BYTE_LEVEL.encode(text, True, special)
        assert BYTE_LEVEL.encode_if_idle(text, True, special) == expected
    with BYTE_LEVEL._lock:
        assert BYTE_LEVEL.encode_if_idle("ab", True, True) is None
    assert BYTE_LEVEL.encode_if_idle("ab", True, True) is not None


def test_character_of_byte_counts_characters():
    assert character_of_byte("aé世") == [0, 1, 1, 2, 2, 2]
