import unicodedata

import gguf
import numpy as np
import pytest
import sentencepiece

from tests.weights.nasty import nasty_texts
from tests.weights.tiny import TEXT
from weights.checkpoint import CheckpointError
from weights.gguf_tokenizer import read_gguf_tokenizer

KINDS = {
    "as trained by default": {},
    "bytes, nothing normalized": {
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
    },
    "no space before": {"add_dummy_prefix": False},
}


@pytest.fixture(scope="module", params=KINDS)
def model(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unigram")
    lines = TEXT * 3 + [text for text in nasty_texts() if text.isprintable()]
    (folder / "text.txt").write_text("\n".join(lines))
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "text.txt"),
        model_prefix=str(folder / "a"),
        model_type="unigram",
        vocab_size=900,
        hard_vocab_limit=False,
        minloglevel=2,
        **KINDS[request.param],
    )
    return folder / "a.model"


def metadata_of(path):
    """As llama.cpp's converter writes a Unigram model."""
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(path))
    ids = range(theirs.get_piece_size())
    normalizer = fields_of(fields_of(path.read_bytes())[3])
    found = {
        "model": "t5",
        "tokens": [theirs.id_to_piece(i) for i in ids],
        "scores": np.array([theirs.get_score(i) for i in ids], np.float32),
        "token_type": np.array([kind_of(theirs, i) for i in ids], np.int32),
        "unknown_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "add_space_prefix": bool(normalizer.get(3, 1)),
        "remove_extra_whitespaces": bool(normalizer.get(4, 1)),
    }
    if normalizer.get(2):
        found["precompiled_charsmap"] = np.frombuffer(normalizer[2], np.uint8).astype(np.int32)
    return {f"tokenizer.ggml.{name}": value for name, value in found.items()}


def kind_of(theirs, i):
    if theirs.is_unknown(i):
        return gguf.TokenType.UNKNOWN
    if theirs.is_control(i):
        return gguf.TokenType.CONTROL
    return gguf.TokenType.BYTE if theirs.is_byte(i) else gguf.TokenType.NORMAL


def fields_of(message):
    """A protocol buffer's fields by number, the last of each: bytes or whole numbers."""
    found, at = {}, 0
    while at < len(message):
        tag, at = varint(message, at)
        if tag & 7 == 0:
            found[tag >> 3], at = varint(message, at)
        elif tag & 7 == 2:
            size, at = varint(message, at)
            found[tag >> 3], at = message[at : at + size], at + size
        else:
            at += {1: 8, 5: 4}[tag & 7]
    return found


def varint(message, at):
    value = shift = 0
    while True:
        byte, at = message[at], at + 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def has_marks(text):
    return any(unicodedata.category(c) in ("Mn", "Mc", "Me", "Cf") for c in text)


def test_ids_are_those_of_the_sentencepiece_library(model):
    """
    Or as good: of cuts with equal scores the two take different ones.

    No marks: the tokenizers library, and so transformers, normalizes what looks like one character
    as a whole.
    """
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(model))
    ours = read_gguf_tokenizer(metadata_of(model)).tokenizer
    special = ("<s>", "</s>", "<unk>", "\x00")
    texts = [t for t in nasty_texts() if not any(x in t for x in special) and not has_marks(t)]
    assert len(texts) > 300
    equal = 0
    for text in texts:
        found, expected = ours.encode(text, add_special_tokens=False).ids, theirs.encode(text)
        equal += found == expected
        scores = [sum(map(theirs.get_score, ids)) for ids in (found, expected)]
        assert found == expected or scores[0] == pytest.approx(scores[1], abs=1e-3), text
    assert len(texts) - equal < 10


def test_text_comes_back(model):
    ours = read_gguf_tokenizer(metadata_of(model)).tokenizer
    assert ours.decode(ours.encode("The dog is quick").ids) == "The dog is quick"


BROKEN = {
    "no scores": {"scores": None},
    "no unknown token": {"unknown_token_id": None},
    "a charsmap of text": {"precompiled_charsmap": "abc"},
    "a charsmap of noise": {"precompiled_charsmap": np.arange(7, dtype=np.uint8)},
}


@pytest.mark.parametrize("change", BROKEN.values(), ids=BROKEN)
def test_broken_vocabulary_is_one_readable_line(model, change):
    changes = {f"tokenizer.ggml.{name}": value for name, value in change.items()}
    with pytest.raises(CheckpointError) as caught:
        read_gguf_tokenizer(metadata_of(model) | changes)
    assert "GGUF tokenizer" in str(caught.value)
    assert "\n" not in str(caught.value)
