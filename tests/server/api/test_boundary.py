"""Where a prompt ends, with SmolLM2's tokenizer: a space belongs to the word behind it."""

import asyncio
import dataclasses
from types import SimpleNamespace

import pytest

from server.api.boundary import Encoder, continue_prompt
from server.api.service import Service, SpecialIds
from server.errors import BadRequest, ContextLengthExceeded, EmptyPrompt
from server.metrics import Metrics
from server.settings import Settings
from server.text.tokenizer import TextTokenizer
from weights.catalog import resolve
from weights.load import load

BOS = 1


@pytest.fixture(scope="module")
def tokenizer():
    checkpoint = load(resolve("smollm2-135m-instruct"))
    return TextTokenizer(checkpoint.tokenizer, checkpoint.config.vocab_size)


@pytest.fixture
def go(tokenizer):
    service = Service(Settings(), Metrics())
    model = SimpleNamespace(
        tokenizer=tokenizer,
        vocab_size=tokenizer.vocab_size,
        context_length=2048,
        special=SpecialIds(BOS, None, None, None, (), adds_bos=False),
    )

    def run(prompt, *continuations, add=True):
        encoder = Encoder(tokenizer, add, True)
        return asyncio.run(
            continue_prompt(service, model, prompt, continuations, encoder, "prompt")
        )

    run.model = model
    yield run
    service.tokenizing.shutdown()


def spelled(tokenizer, found):
    pieces = [tokenizer.token_text(t) for t in found.context]
    return pieces, [[tokenizer.token_text(t) for t in ids] for ids in found.continuations]


def test_a_word_behind_a_prompt_changes_nothing_of_it(go, tokenizer):
    found = go("I was", " late", " early, I think")
    assert spelled(tokenizer, found) == (
        ["I", " was"],
        [[" late"], [" early", ",", " I", " think"]],
    )


def test_a_space_at_the_end_of_the_prompt_belongs_to_every_continuation(go, tokenizer):
    """The documented example."""
    found = go("I was ", "late", "1")
    assert spelled(tokenizer, found) == (["I", " was"], [[" late"], [" ", "1"]])


def test_a_word_cut_in_two_is_one_again_and_all_are_compared_from_before_it(go, tokenizer):
    found = go("We saw New Yo", "rk", " today")
    context, texts = spelled(tokenizer, found)
    assert context == ["We", " saw", " New"]
    assert texts == [[" York"], [" Y", "o", " today"]]


@pytest.mark.parametrize("prompt", ["I was ", "a b", "x", "3.1", "caf", "def f(x):\n    ", "世"])
@pytest.mark.parametrize("text", ["late", " b", "\n", "é", "14", "return x", "界", "<|im_end|>"])
def test_context_and_continuation_are_the_tokens_of_the_one_text(go, tokenizer, prompt, text):
    found = go(prompt, text)
    whole = tokenizer.encode(prompt + text, True, True)
    [ids] = found.continuations
    assert [*found.context, *ids] in (whole, [BOS, *whole])


def test_where_no_token_of_the_prompt_is_left_the_bos_token_comes_first(go, tokenizer):
    found = go("New", "foundland")
    if found.context == (BOS,):
        assert "".join(spelled(tokenizer, found)[1][0]) == "Newfoundland"
    assert go("", "a").context == (BOS,)
    go.model.special = dataclasses.replace(go.model.special, bos=None)
    with pytest.raises(EmptyPrompt):
        go("", "a")


def test_token_ids_are_taken_as_they_are(go, tokenizer):
    prompt, ids = tuple(tokenizer.encode("I was ", True, True)), (3008, 33)
    assert go(prompt, ids).continuations == [ids]
    assert go(prompt, "late").continuations == [tuple(tokenizer.encode("late", False, True))]
    assert go("I was ", ids).context == prompt
    assert go("I was ", ids).continuations == [ids]


def test_ids_beside_texts_begin_where_the_texts_do(go, tokenizer):
    found = go("I was ", (33,), "late")
    assert found.context == tuple(tokenizer.encode("I was", True, True))
    assert spelled(tokenizer, found)[1] == [[" ", "1"], [" late"]]


def test_a_long_prompt_is_tokenised_once_and_all_the_same(go, tokenizer):
    prompt = " ".join(f"word{i}, and\n\tmore 3.14{i}" for i in range(100))
    head, tail = Encoder(tokenizer, True, True).split(prompt)
    assert head
    assert 256 <= len(tail) < 400
    for text in (" late", "late", "\n\n", "0", " "):
        found = go(prompt, text)
        whole = tokenizer.encode(prompt + text, True, True)
        assert [*found.context, *found.continuations[0]] == whole


def test_what_does_not_fit_is_named(go):
    with pytest.raises(ContextLengthExceeded, match=r"continuations\.1"):
        go("a", " b", (5,) * 2048)
    with pytest.raises(BadRequest, match=r"continuations\.0"):
        go("a", ())
