"""
Both checkpoints in float32, through the socket, beside transformers' float64 and minicons: within
1e-4 nat. Among our own routes the same quantity is the same float: there the tests say `==`.
"""

from __future__ import annotations

import base64
import math

import numpy as np
import pytest
import torch
from minicons import scorer
from transformers import PreTrainedTokenizerFast

from server.api.surprisal import windows
from server.text.tokenizer import TextTokenizer
from tests.end_to_end.running import events
from tests.reference import TEXTS, exact_model, expected, long_text
from weights.catalog import resolve
from weights.load import load

NAT = 1e-4
PROMPT = "The capital of France is"
GARDEN_PATH = "The horse raced past the barn fell down in the old field."


def ask(server, path, **body):
    answer = server.post(path, body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def model_of(server):
    return server.http.get("/props").json()["model"]


def surprisal(server, text, **fields):
    return ask(server, "/surprisal", text=text, unit="nats", **fields)["results"]


def compare(server, result):
    """One text's tokens with transformers', given the same ids."""
    tokens = result["tokens"]
    bos = (server.http.get("/tokenizer_info").json()["bos_token_id"],) if result["bos"] else ()
    ids = (*bos, *(token["id"] for token in tokens))
    scored = [token for token in tokens if token["surprisal"] is not None]
    assert len(scored) == len(ids) - 1
    own, low, high, entropies = expected(model_of(server), ids)
    assert [-t["surprisal"] for t in scored] == pytest.approx(own.tolist(), abs=NAT)
    assert [t["entropy"] for t in scored] == pytest.approx(entropies.tolist(), abs=NAT)
    ranks = torch.tensor([t["rank"] for t in scored])
    assert bool(((low <= ranks) & (ranks <= high)).all())


def test_surprisals_ranks_and_entropies_are_transformers(exact):
    for result in surprisal(exact, list(TEXTS)):
        compare(exact, result)


@pytest.mark.long
def test_a_text_of_4000_tokens_is_scored_as_transformers_scores_it(exact):
    [result] = surprisal(exact, long_text())
    assert result["totals"]["tokens"] > 3900
    compare(exact, result)


def test_distributions_are_transformers(exact):
    for prompt in TEXTS:
        told = ask(exact, "/next-token-probabilities", prompt=prompt, full="base64")
        [result] = told["results"]
        ids = ask(exact, "/tokenize", prompt=prompt)["tokens"]
        with torch.no_grad():
            logits = exact_model(model_of(exact))(torch.tensor([ids])).logits[0, -1]
        theirs = logits.double().log_softmax(-1).numpy()
        ours = np.frombuffer(base64.b64decode(result["distribution"]["data"]), "<f4")
        assert np.abs(ours - theirs).max() < NAT


def test_a_sliding_window_scores_as_the_guide_to_perplexity_does(exact):
    text = long_text(600)
    [result] = surprisal(exact, text, window=48, stride=20)
    info = exact.http.get("/tokenizer_info").json()
    tokens = [t["id"] for t in result["tokens"]]
    ids = [info["bos_token_id"], *tokens] if result["bos"] else tokens
    theirs = []
    for begin, first, end in windows(len(ids), 48, 20):
        own, *_ = expected(model_of(exact), tuple(ids[begin:end]))
        theirs += own[first - begin - 1 :].tolist()
    ours = [-t["surprisal"] for t in result["tokens"] if t["surprisal"] is not None]
    assert ours == pytest.approx(theirs, abs=NAT)
    mean = -math.fsum(theirs) / len(theirs)
    assert result["totals"]["perplexity"] == pytest.approx(math.exp(mean), rel=1e-4)


def test_a_score_is_the_sum_of_next_token_log_probabilities(exact):
    """The chain rule, to the last bit: and one label's score does not hang on the others."""
    texts = [" Paris", " the city of Paris", " the city of Lyon.", " 東京", " 😀", "\n", " P"]
    [result] = ask(exact, "/score", prompt=PROMPT, continuations=texts)["results"]
    for text, told in zip(texts, result["continuations"], strict=True):
        context, logprobs = result["context_token_ids"], []
        for token in told["token_ids"]:
            fields = {"prompt": [context], "ids": [token], "top_k": 1}
            [after] = ask(exact, "/next-token-probabilities", **fields)["results"]
            logprobs.append(after["selected"][0]["logprob"])
            context = [*context, token]
        assert told["token_logprobs"] == logprobs
        assert told["logprob"] == math.fsum(logprobs)
        assert ask(exact, "/tokenize", prompt=PROMPT + text)["tokens"] == context
        [alone] = ask(exact, "/score", prompt=PROMPT, continuations=[text])["results"]
        if alone["context_token_ids"] == result["context_token_ids"]:
            assert alone["continuations"][0]["token_logprobs"] == logprobs


def test_labels_of_one_token_have_the_distributions_probabilities(exact):
    fields = {"prompt": PROMPT, "full": "json", "top_k": 0}
    [whole] = ask(exact, "/next-token-probabilities", **fields)["results"]
    ids = list(range(300, 4396))
    [result] = ask(exact, "/score", prompt=PROMPT, continuations=[[i] for i in ids])["results"]
    logprobs = [c["logprob"] for c in result["continuations"]]
    assert logprobs == [whole["distribution"][i] for i in ids]
    mass = math.fsum(map(math.exp, logprobs))
    assert result["label_mass"] == pytest.approx(mass, rel=1e-12)
    shares = [c["probability"] for c in result["continuations"]]
    assert math.fsum(shares) == pytest.approx(1, abs=1e-12)
    assert shares == pytest.approx([math.exp(x) / mass for x in logprobs], rel=1e-9)
    assert result["best"] == int(np.argmax(logprobs))


def test_the_same_token_in_the_same_context_has_the_same_float_on_every_route(exact):
    prompt = ask(exact, "/tokenize", prompt=GARDEN_PATH)["tokens"]
    told = ask(exact, "/generate", prompt=[prompt], max_tokens=0, prompt_logprobs=5)["prompts"]
    by_prompt = [token["logprob"] for token in told[0]["tokens"][1:]]

    [scored] = ask(exact, "/score", prompt=[prompt[:1]], continuations=[prompt[1:]])["results"]
    assert scored["continuations"][0]["token_logprobs"] == by_prompt

    [result] = surprisal(exact, GARDEN_PATH)
    by_surprisal = [-t["surprisal"] for t in result["tokens"] if t["surprisal"] is not None]
    assert by_surprisal == by_prompt

    for i in range(1, len(prompt)):
        fields = {"prompt": [prompt[:i]], "ids": [prompt[i]], "top_k": 5}
        [after] = ask(exact, "/next-token-probabilities", **fields)["results"]
        assert after["selected"][0]["logprob"] == by_prompt[i - 1]
        tops = [(t["id"], t["logprob"], t["rank"]) for t in after["top"]]
        assert tops == [(t["id"], t["logprob"], t["rank"]) for t in told[0]["tokens"][i]["top"]]

        body = {"prompt": [prompt[:i]], "max_tokens": 1, "logprobs": 0, "temperature": 0}
        body["allowed_token_ids"] = [prompt[i]]
        whole = ask(exact, "/generate", **body)["choices"][0]["tokens"]
        assert whole[0]["logprob"] == by_prompt[i - 1]
        with exact.http.stream("POST", "/generate", json=body | {"stream": True}) as response:
            streamed = [c for e in events(response) if e != "[DONE]" for c in e["choices"]]
        assert [t for choice in streamed for t in choice["tokens"]] == whole


def minicons_scorer(name):
    checkpoint = load(resolve(name))
    special = TextTokenizer(checkpoint.tokenizer, checkpoint.config.vocab_size)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=checkpoint.tokenizer,
        bos_token=special.token_text(checkpoint.special.bos_id),
        eos_token=special.token_text(checkpoint.special.eos_id),
        pad_token=special.token_text(checkpoint.special.pad_id or 0),
    )
    theirs = scorer.IncrementalLMScorer(exact_model(name), "cpu", tokenizer=wrapped)
    # Which tokens begin a word is ours: white space of any kind, and what ends a text.
    theirs.is_bow_tokenizer = True
    vocabulary = range(checkpoint.config.vocab_size)
    theirs.bow_subwords = {token: special.ends_word(token) for token in vocabulary}
    theirs.bow_subword_idx = [token for token in vocabulary if special.ends_word(token)]
    return theirs


def test_minicons_agrees_on_tokens_words_and_conditional_scores(exact):
    theirs = minicons_scorer(model_of(exact))
    [result] = surprisal(exact, GARDEN_PATH, by="word")
    [tokens] = theirs.token_score(GARDEN_PATH, surprisal=True, rank=True)
    ours = [(t["surprisal"], t["rank"]) for t in result["tokens"] if t["surprisal"] is not None]
    assert [s for s, _ in ours] == pytest.approx([s for _, s, _ in tokens[1:]], abs=NAT)
    assert [r for _, r in ours] == [r for *_, r in tokens[1:]]

    [corrected] = theirs.token_score(GARDEN_PATH, surprisal=True, bow_correction=True)
    by_token = [value for _, value in corrected[int(result["bos"]) :]]
    # What theirs scores first it does not take for a word that another one ended before.
    for word in result["words"][1 if result["bos"] else 2 :]:
        own = by_token[word["first_token"] : word["first_token"] + word["num_tokens"]]
        assert word["surprisal"] == pytest.approx(math.fsum(own), abs=NAT)

    stimuli = ["Paris.", "London, of course."]
    totals = theirs.conditional_score(
        [PROMPT] * 2, stimuli, reduction=lambda scores: scores.sum(0).item()
    )
    texts = [f" {stimulus}" for stimulus in stimuli]
    [scored] = ask(exact, "/score", prompt=PROMPT, continuations=texts)["results"]
    assert [c["logprob"] for c in scored["continuations"]] == pytest.approx(totals, abs=NAT)
