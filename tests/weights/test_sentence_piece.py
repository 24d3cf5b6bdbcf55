import gguf
import numpy as np
import pytest
import sentencepiece
import transformers
from transformers.tokenization_utils_base import generate_merges

from tests.weights.nasty import nasty_texts
from tests.weights.tiny import TEXT
from weights.gguf_tokenizer import read_gguf_tokenizer


@pytest.fixture(scope="module")
def spm_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("spm")
    (folder / "text.txt").write_text(
        "\n".join(TEXT * 3 + [t for t in nasty_texts() if t.isalpha()])
    )
    options = {
        "model_type": "bpe",
        "vocab_size": 700,
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "user_defined_symbols": ["<tag>", "\n\n"],
        "minloglevel": 2,
    }
    for adds_space in (True, False):
        sentencepiece.SentencePieceTrainer.train(
            input=str(folder / "text.txt"),
            model_prefix=str(folder / str(adds_space)),
            add_dummy_prefix=adds_space,
            **options,
        )
    return folder


@pytest.mark.parametrize("adds_space", [True, False])
def test_sentence_piece_ids_are_those_of_the_sentencepiece_library(spm_model, adds_space):
    """
    No text with <tag>: what follows a user-defined token begins with a space here, as in llama.cpp,
    if any does.
    """
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(spm_model / f"{adds_space}.model"))
    ours = read_gguf_tokenizer(sentence_piece(theirs, adds_space)).tokenizer
    for text in nasty_texts():
        if not any(own in text for own in ("\n\n", "▁", "<s>", "</s>", "<unk>", "\x00")):
            assert ours.encode(text, add_special_tokens=False).ids == theirs.encode(text), text


@pytest.mark.parametrize(
    ("adds_space", "kind"), [(True, "LlamaTokenizer"), (False, "GemmaTokenizer")]
)
def test_sentence_piece_ids_are_those_of_transformers_own_class(spm_model, adds_space, kind):
    """
    But for texts that begin with a space: before those transformers adds none, SentencePiece and
    llama.cpp add theirs all the same, and so does this.
    """
    model = sentencepiece.SentencePieceProcessor(model_file=str(spm_model / f"{adds_space}.model"))
    ours = read_gguf_tokenizer(sentence_piece(model, adds_space)).tokenizer
    vocab = {model.id_to_piece(i): i for i in range(model.get_piece_size())}
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    if not adds_space:
        special |= {"pad_token": "<unk>", "mask_token": "<unk>"}
    theirs = getattr(transformers, kind)(vocab=vocab, merges=generate_merges(vocab), **special)
    reserved = ("\n\n", "▁", "<s>", "</s>", "<unk>", "\x00")
    texts = [text for text in nasty_texts() if not any(own in text for own in reserved)]
    texts = [text for text in texts if not (adds_space and text.startswith(" "))]
    assert len(texts) > 300
    for text in texts:
        expected = theirs.encode(text, add_special_tokens=False)
        assert ours.encode(text, add_special_tokens=False).ids == expected, text


def sentence_piece(theirs, adds_space):
    def kind(i):
        if theirs.is_control(i):
            return gguf.TokenType.CONTROL
        if theirs.is_byte(i):
            return gguf.TokenType.BYTE
        if theirs.is_unknown(i):
            return gguf.TokenType.UNKNOWN
        piece = theirs.id_to_piece(i)
        return gguf.TokenType.USER_DEFINED if piece in ("<tag>", "\n\n") else gguf.TokenType.NORMAL

    count = theirs.get_piece_size()
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [theirs.id_to_piece(i) for i in range(count)],
        "tokenizer.ggml.scores": np.array([theirs.get_score(i) for i in range(count)], np.float32),
        "tokenizer.ggml.token_type": np.array([kind(i) for i in range(count)], np.int32),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.add_space_prefix": adds_space,
    }


@pytest.mark.parametrize("adds_space", [True, False])
def test_sentence_piece_text_comes_back_without_the_space_before_it(spm_model, adds_space):
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(spm_model / f"{adds_space}.model"))
    ours = read_gguf_tokenizer(sentence_piece(theirs, adds_space)).tokenizer
    for text in ("The dog", " two", "日本🙂", "a  b"):
        assert ours.decode(ours.encode(text).ids) == text
