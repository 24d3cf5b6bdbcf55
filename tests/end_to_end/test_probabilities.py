import base64
import io
import time

import numpy as np
import pytest

from tests.scripted import BOS, CONTEXT, EOS, SLOW, VOCAB_SIZE


def probabilities(server, prompt, **fields):
    body = {"prompt": prompt, "add_special_tokens": False} | fields
    answer = server.post("/next-token-probabilities", body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_probabilities_have_the_documented_shape(server):
    answer = probabilities(server, ["ab", "c"], top_k=2, ids=[5], texts=["x", "</s>"])
    assert answer["object"] == "next_token_probabilities"
    assert answer["usage"]["prompt_tokens"] == 3
    assert answer["usage"]["completion_tokens"] == 0
    first, second = answer["results"]
    assert [t["id"] for t in first["selected"]] == [5, ord("x"), EOS]
    assert (first["index"], second["index"], first["prompt_tokens"]) == (0, 1, 2)
    best = first["top"][0]
    assert (best["id"], best["text"], best["bytes"], best["rank"]) == (97, "a", [97], 1)
    assert best["probability"] == pytest.approx(np.exp(best["logprob"]), rel=1e-12)
    assert best["logprob"] == pytest.approx(best["logit"] - first["logsumexp"], abs=1e-5)
    assert first["top_mass"] == pytest.approx(sum(t["probability"] for t in first["top"]))
    assert "distribution" not in first


def test_a_whole_distribution_is_the_same_in_every_form(server):
    as_json = probabilities(server, ["ab", "c"], full="json")["results"]
    as_base64 = probabilities(server, ["ab", "c"], full="base64")["results"]
    body = {"prompt": ["ab", "c"], "add_special_tokens": False}
    answer = server.post("/next-token-probabilities", body, headers={"accept": "application/x-npy"})
    assert answer.headers["content-type"] == "application/x-npy"

    matrix = np.load(io.BytesIO(answer.content), allow_pickle=False)
    assert (matrix.shape, matrix.dtype) == ((2, VOCAB_SIZE), np.float32)
    for row, first, second in zip(matrix, as_json, as_base64, strict=True):
        told = second["distribution"]
        assert (told["dtype"], told["encoding"], told["shape"]) == ("float32", "base64", [260])
        assert np.array_equal(np.frombuffer(base64.b64decode(told["data"]), "<f4"), row)
        assert first["distribution"] == row.tolist()
        assert np.exp(row.astype(np.float64)).sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("accept", "is_npy"),
    [
        ("application/x-npy", True),
        ("APPLICATION/X-NPY;q=0.5, */*", True),
        ("application/json, application/x-npy; q=0", False),
        ("application/x-npy-2", False),
        ("*/*", False),
    ],
)
def test_the_binary_form_is_for_who_names_it(server, accept, is_npy):
    """It was looked for anywhere in the header: `q=0` did not exclude it, nor was case ignored."""
    headers = {"accept": accept}
    answer = server.post("/next-token-probabilities", {"prompt": "ab"}, headers=headers)
    expected = "application/x-npy" if is_npy else "application/json"
    assert answer.headers["content-type"] == expected


def test_a_probability_of_nothing_is_a_number(server):
    padded = VOCAB_SIZE - 1
    [result] = probabilities(server, "ab", ids=[padded], full="json", top_k=VOCAB_SIZE)["results"]
    [told] = result["selected"]
    assert (told["logprob"], told["probability"], told["text"]) == (-9999.0, 0.0, "")
    assert result["distribution"][padded] == -9999.0
    assert result["top"][-1]["id"] == padded


def test_a_text_of_several_tokens_is_refused_naming_them(server):
    answer = server.post("/next-token-probabilities", {"prompt": "a", "texts": ["x", "yz"]})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, "texts.1")
    assert "2 tokens (121 'y', 122 'z')" in error["message"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/next-token-probabilities", b'{"prompt": "a", "temperature": NaN}'),
        ("/score", b'{"prompt": "a", "continuations": ["b"], "normalize": NaN}'),
        ("/surprisal", b'{"text": "a", "window": NaN}'),
    ],
)
def test_what_is_not_a_number_is_refused(server, path, body):
    answer = server.http.post(path, content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_json")


def test_several_prompts_are_one_batch(server):
    """The model takes 50 ms a step for these: one by one they would be as many steps."""
    prompts = [SLOW + chr(97 + i) for i in range(16)]
    asked = time.monotonic()
    for prompt in prompts:
        probabilities(server, prompt)
    one_by_one, asked = time.monotonic() - asked, time.monotonic()
    results = probabilities(server, [prompt + "z" for prompt in prompts])["results"]
    assert len(results) == 16
    assert time.monotonic() - asked < one_by_one / 4


def test_a_prompt_is_found_in_the_cache(server):
    prompt = list(range(30, 80))
    probabilities(server, prompt)
    assert probabilities(server, prompt)["usage"]["cached_tokens"] == 48


def test_a_temperature_flattens_the_distribution(server):
    [raw] = probabilities(server, "ab")["results"]
    [hot] = probabilities(server, "ab", temperature=3.0)["results"]
    assert hot["entropy"] > raw["entropy"]
    assert probabilities(server, "ab", temperature=3.0)["computed"]["logprobs_mode"] == "processed"
    assert probabilities(server, "ab", temperature=1.0)["computed"]["logprobs_mode"] == "raw"


def test_a_prompt_that_fills_the_context_still_has_a_next_token(server):
    [result] = probabilities(server, [97] * CONTEXT)["results"]
    assert result["top"][0]["id"] == 97


def test_tokenize_and_detokenize_are_inverses(server):
    text = "a é\n世😀<mark>"
    tokens = server.post("/tokenize", {"prompt": text, "add_special_tokens": False}).json()
    assert tokens["count"] == len(tokens["tokens"]) == len(tokens["pieces"])
    assert tokens["max_model_len"] == CONTEXT
    assert server.post("/detokenize", {"tokens": tokens["tokens"]}).json() == {"prompt": text}
    for piece, token in zip(tokens["pieces"], tokens["tokens"], strict=True):
        assert piece["id"] == token
        assert bytes(piece["bytes"]) in text[piece["start"] : piece["end"]].encode()


def test_tokenize_adds_special_tokens_unless_told_not_to(server):
    assert server.post("/tokenize", {"prompt": "a"}).json()["tokens"] == [BOS, 97]
    plain = {"prompt": "a", "add_special_tokens": False}
    assert server.post("/tokenize", plain).json()["tokens"] == [97]


def test_tokenizer_info_names_the_special_tokens(server):
    info = server.http.get("/tokenizer_info").json()
    assert (info["bos_token"], info["eos_token"], info["pad_token"]) == ("<s>", "</s>", None)
    assert (info["bos_token_id"], info["vocab_size"]) == (BOS, VOCAB_SIZE)
