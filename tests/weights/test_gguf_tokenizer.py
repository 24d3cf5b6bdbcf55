import hashlib
import unicodedata

import gguf
import numpy as np
import pytest
import transformers
from tokenizers import Regex, Tokenizer, pre_tokenizers

from tests.weights.nasty import nasty_texts, recording
from tests.weights.tiny import tiny_gguf, tiny_tokenizer
from weights.bpe_rules import RULES
from weights.checkpoint import CheckpointError, UnsupportedCheckpoint
from weights.gguf_header import read_header
from weights.gguf_tokenizer import read_gguf_tokenizer
from weights.load import load

REAL = [("smollm2-135m-instruct", "smollm"), ("gemma-3-270m", "gemma")]
# Where llama.cpp is wrong. Gemma's vocabulary has the HTML tag </s> as a user-defined token;
# llama.cpp takes any
# token of that text for an end of text, makes it a control token, and no longer finds it in
# ordinary text.
EXCEPT = {"gemma-3-270m": {"</s>"}, "smollm2-135m-instruct": set()}


def ids(tokenizer, text, special=False):
    tokenizer.encode_special_tokens = not special
    try:
        return tokenizer.encode(text, add_special_tokens=False).ids
    finally:
        tokenizer.encode_special_tokens = False


@pytest.mark.parametrize(("name", "fixture"), REAL)
def test_ids_are_llama_cpps_with_special_tokens_as_text_and_as_tokens(name, fixture, request):
    tokenizer = request.getfixturevalue(fixture).tokenizer
    cases = recording(name)["cases"]
    assert len(cases) > 400
    wrong = set()
    for case in cases:
        text = case["text"]
        plain, special = ids(tokenizer, text), ids(tokenizer, text, special=True)
        if (plain, special) != (case["plain"], case.get("special", case["plain"])):
            wrong.add(text)
    assert wrong == EXCEPT[name]


@pytest.mark.parametrize(("name", "fixture"), REAL)
def test_text_comes_back_from_its_ids(name, fixture, request):
    """
    Left out: ▁, which is a space to SentencePiece, and unassigned planes, some of whose bytes
    SmolLM2's vocabulary does not have.
    """
    tokenizer = request.getfixturevalue(fixture).tokenizer
    for text in nasty_texts():
        if "▁" not in text and max(text, default="") < "\U00040000":
            assert tokenizer.decode(ids(tokenizer, text), skip_special_tokens=False) == text


@pytest.mark.parametrize(("name", "fixture"), REAL)
def test_beginning_and_end_tokens_are_the_files(name, fixture, request):
    checkpoint = request.getfixturevalue(fixture)
    assert checkpoint.tokenizer.encode("a").ids == recording(name)["a_with_bos"]
    assert checkpoint.special.adds_bos is (len(recording(name)["a_with_bos"]) == 2)
    assert set(checkpoint.special.stop_ids) <= set(recording(name)["end_of_generation"])


def test_smollm_splits_digits_one_by_one(smollm):
    assert smollm.tokenizer.encode("in 1984").tokens == ["in", "Ġ", "1", "9", "8", "4"]


@pytest.mark.parametrize("rule", recording("rules")["rules"], ids=lambda rule: rule["names"][0])
def test_every_rule_cuts_words_as_llama_cpp_does(rule):
    """
    Where the model's own tokenizer composes characters first, or splits numbers among bytes, and
    llama.cpp does neither: of texts that are composed already, and without such bytes.
    """
    recorded = recording("rules")
    for name in rule["names"]:
        tokenizer = read_gguf_tokenizer(byte_level(recorded, name)).tokenizer
        pairs = zip(nasty_texts(), rule["digests"].split(), strict=True)
        if RULES[name].composes:
            pairs = [pair for pair in pairs if unicodedata.is_normalized("NFC", pair[0])]
        if RULES[name].byte_patterns:
            pairs = [pair for pair in pairs if not any(map(str.isnumeric, bytes_of(pair[0])))]
            assert len(pairs) > 200
        for text, expected in pairs:
            assert digest(ids(tokenizer, text)) == expected, (name, text)


def bytes_of(text):
    """A character a byte, as byte-level vocabularies write them."""
    whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return "".join(piece for piece, _ in whole.pre_tokenize_str(text))


# transformers builds these from a vocabulary and merges alone, with the model's own rules.
THEIRS = {
    "gpt-2": transformers.GPT2Tokenizer,
    "qwen2": transformers.Qwen2Tokenizer,
    "command-r": transformers.CohereTokenizer,
    "mpt": transformers.GPTNeoXTokenizer,
}


@pytest.mark.parametrize("name", THEIRS)
def test_ids_of_a_rule_are_those_of_transformers_own_class(name):
    recorded = recording("rules")
    ours = read_gguf_tokenizer(byte_level(recorded, name)).tokenizer
    vocab = {token: id_ for id_, token in enumerate(recorded["tokens"])}
    merges = [tuple(merge.split(" ")) for merge in recorded["merges"]]
    last = recorded["tokens"][-1]
    special = dict.fromkeys(("unk_token", "bos_token", "eos_token", "pad_token"), last)
    theirs = THEIRS[name](vocab=vocab, merges=merges, **special)
    texts = [text for text in nasty_texts() if last not in text and "<" not in text]
    assert len(texts) > 300
    for text in texts:
        assert ids(ours, text) == theirs.encode(text, add_special_tokens=False), text


GPT4O = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BLOOM = r" ?[^(\s|[.,!?…。，、।۔،])]+"


def split(pattern):
    return [
        pre_tokenizers.Split(Regex(pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]


def single_digits():
    return [
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ]


# Where no class of transformers' is, the pre_tokenizer of the model's tokenizer.json, as published.
PUBLISHED = {
    "bloom": split(BLOOM),
    "gpt-4o": split(GPT4O),
    "llama-bpe": split(LLAMA3),
    "smaug-bpe": split(LLAMA3),
    "dbrx": split(LLAMA3),
    "stablelm2": split(LLAMA3.replace("{1,3}", "")),
    "smollm": single_digits(),
    "starcoder": single_digits(),
    "refact": single_digits(),
    "falcon": [
        pre_tokenizers.Punctuation("contiguous"),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
        pre_tokenizers.Digits(individual_digits=False),
        pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), "isolated"),
    ],
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_ids_of_a_rule_are_those_of_the_models_published_pattern(name):
    recorded = recording("rules")
    ours = read_gguf_tokenizer(byte_level(recorded, name)).tokenizer
    theirs = Tokenizer.from_str(ours.to_str())
    theirs.pre_tokenizer = pre_tokenizers.Sequence(PUBLISHED[name])
    for text in nasty_texts():
        assert ids(ours, text) == ids(theirs, text), text
    assert ours.pre_tokenizer.pre_tokenize_str("(a camelCase, 12345!") == (
        theirs.pre_tokenizer.pre_tokenize_str("(a camelCase, 12345!")
    )


def digest(tokens):
    return hashlib.sha256(" ".join(map(str, tokens)).encode()).hexdigest()[:8]


def byte_level(recorded, rule, **changes):
    kinds = [gguf.TokenType.NORMAL] * (len(recorded["tokens"]) - 1) + [gguf.TokenType.CONTROL]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": rule,
        "tokenizer.ggml.tokens": recorded["tokens"],
        "tokenizer.ggml.token_type": np.array(kinds, np.int32),
        "tokenizer.ggml.merges": recorded["merges"],
        "tokenizer.ggml.bos_token_id": len(kinds) - 1,
        "tokenizer.ggml.eos_token_id": len(kinds) - 1,
        **changes,
    }


def test_unknown_rule_is_refused_by_name():
    with pytest.raises(UnsupportedCheckpoint, match="tekken-9"):
        read_gguf_tokenizer(byte_level(recording("rules"), "tekken-9"))


def test_unknown_kind_of_tokenizer_is_refused_by_name():
    with pytest.raises(UnsupportedCheckpoint, match="rwkv"):
        read_gguf_tokenizer({"tokenizer.ggml.model": "rwkv"})


def test_bos_and_eos_are_added_where_the_file_says_so():
    recorded = recording("rules")
    last = len(recorded["tokens"]) - 1
    changes = {"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.add_eos_token": True}
    found = read_gguf_tokenizer(byte_level(recorded, "gpt-2", **changes))
    encoded = found.tokenizer.encode("a").ids
    assert (encoded[0], encoded[-1], len(encoded)) == (last, last, 3)
    assert found.special.adds_bos
    assert found.tokenizer.encode("a", add_special_tokens=False).ids == encoded[1:-1]


def test_llama3s_rule_adds_bos_where_the_file_is_silent():
    recorded = recording("rules")
    assert read_gguf_tokenizer(byte_level(recorded, "llama-bpe")).special.adds_bos
    assert not read_gguf_tokenizer(byte_level(recorded, "qwen2")).special.adds_bos


def test_control_tokens_are_special_and_user_defined_ones_are_not(gemma):
    added = gemma.tokenizer.get_added_tokens_decoder()
    assert added[106].content == "<end_of_turn>"
    assert added[106].special
    assert added[108].content == "\n\n"
    assert not added[108].special


def test_tiny_file_gives_the_tokenizer_it_was_written_from(tmp_path):
    ours, written = load(tiny_gguf(tmp_path / "a.gguf")).tokenizer, tiny_tokenizer()
    assert isinstance(ours, Tokenizer)
    for text in nasty_texts():
        assert ours.encode(text).ids == written.encode(text).ids


BROKEN = {
    "no tokens": {"tokenizer.ggml.tokens": None},
    "tokens as numbers": {"tokenizer.ggml.tokens": np.zeros(3)},
    "no merges": {"tokenizer.ggml.merges": None},
    "a merge of unknown tokens": {"tokenizer.ggml.merges": ["never seen"]},
    "a merge of one": {"tokenizer.ggml.merges": ["a"]},
    "an empty merge": {"tokenizer.ggml.merges": [""]},
    "too few types": {"tokenizer.ggml.token_type": np.zeros(3, np.int32)},
    "types that are text": {"tokenizer.ggml.token_type": "NORMAL"},
    "a bos beyond the end": {"tokenizer.ggml.bos_token_id": 10**6},
    "a negative eos": {"tokenizer.ggml.eos_token_id": -1},
    "a bos that is a flag": {"tokenizer.ggml.bos_token_id": True},
    "a flag that is a number": {"tokenizer.ggml.add_bos_token": 1},
    "a token twice": {"tokenizer.ggml.tokens": ["a"] * 1801},
    "a token of 4 KB": {"tokenizer.ggml.tokens": ["a" * 4096]},
    "NaN scores": {"tokenizer.ggml.scores": np.full(1801, np.nan)},
    "a template that is a number": {"tokenizer.chat_template": 5},
}


@pytest.mark.parametrize("change", BROKEN.values(), ids=BROKEN)
def test_broken_vocabulary_is_one_readable_line(change):
    with pytest.raises(CheckpointError) as caught:
        read_gguf_tokenizer(byte_level(recording("rules"), "gpt-2", **change))
    assert 10 < len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


def test_vocabulary_is_read_from_the_header_alone(smollm_path):
    metadata = read_header(smollm_path).metadata
    assert len(metadata["tokenizer.ggml.tokens"]) == 49_152
