"""The catalogue's models through the socket: what is said of their probabilities is true."""

import base64
import io
import math
import subprocess
import threading

import numpy as np
import pytest

from tests.end_to_end.running import ROOT, TIEDLM, events

PROMPT = "The capital of France is"
NASTY = "naïve 3.14159 世界 😀👩‍👩‍👧 \t\n\n  x\u0000é\u0301 <|im_start|> don't"


def probabilities(server, prompt=PROMPT, **fields):
    answer = server.post("/next-token-probabilities", {"prompt": prompt} | fields)
    assert answer.status_code == 200, answer.text
    return answer.json()["results"]


def test_the_model_knows_the_capital_of_france(real):
    [result] = probabilities(real, texts=[" Paris"])
    assert result["selected"][0]["rank"] <= 5


def test_a_whole_distribution_sums_to_one_and_its_top_is_the_top(real):
    [result] = probabilities(real, full="base64", top_k=50)
    values = np.frombuffer(base64.b64decode(result["distribution"]["data"]), "<f4")
    assert len(values) == real.http.get("/props").json()["vocab_size"]
    assert abs(np.exp(values.astype(np.float64)).sum() - 1) < 1e-5
    order = np.argsort(-values, kind="stable")[:50]
    assert [t["id"] for t in result["top"]] == order.tolist()
    assert [t["logprob"] for t in result["top"]] == values[order].tolist()
    terms = np.exp(values.astype(np.float64)) * values
    assert result["entropy"] == pytest.approx(-terms.sum(), abs=1e-4)


def test_the_forms_of_a_distribution_are_bit_for_bit_the_same(real):
    [as_json] = probabilities(real, full="json")
    [as_base64] = probabilities(real, full="base64")
    answer = real.post(
        "/next-token-probabilities", {"prompt": PROMPT}, headers={"accept": "application/x-npy"}
    )
    matrix = np.load(io.BytesIO(answer.content), allow_pickle=False)
    assert as_json["distribution"] == matrix[0].tolist()
    assert base64.b64decode(as_base64["distribution"]["data"]) == matrix[0].tobytes()


def test_the_first_token_generated_is_the_likeliest_and_has_the_same_float(real):
    [result] = probabilities(real, top_k=5)
    fields = {"max_tokens": 1, "temperature": 0, "logprobs": 5}
    [token] = real.generate(PROMPT, **fields)["choices"][0]["tokens"]
    assert (token["id"], token["logprob"]) == (result["top"][0]["id"], result["top"][0]["logprob"])
    assert [t["logprob"] for t in token["top"]] == [t["logprob"] for t in result["top"]]


def test_log_probabilities_of_a_prompt_are_those_of_each_next_token(real):
    answer = real.generate(PROMPT, max_tokens=0, prompt_logprobs=1)
    [prompt] = answer["prompts"]
    ids = prompt["token_ids"]
    for i in range(1, len(ids)):
        [result] = probabilities(real, [ids[:i]], ids=[ids[i]])
        assert prompt["tokens"][i]["logprob"] == result["selected"][0]["logprob"]
        assert prompt["tokens"][i]["top"][0]["logprob"] == result["top"][0]["logprob"]


def test_several_prompts_at_once_have_the_floats_of_each_alone(real):
    prompts = [PROMPT, "1 + 1 =", "Once upon a time, in a land far away,"]
    together = probabilities(real, prompts)
    for prompt, result in zip(prompts, together, strict=True):
        [alone] = probabilities(real, prompt)
        assert alone["top"] == result["top"]


def test_a_stream_says_what_the_whole_answer_says(real):
    fields = {"max_tokens": 24, "temperature": 0.9, "seed": 3, "logprobs": 1}
    whole = real.generate(PROMPT, **fields)["choices"][0]
    body = {"prompt": PROMPT, "stream": True} | fields
    with real.http.stream("POST", "/generate", json=body) as response:
        *parts, last, done = events(response)
    choices = [part["choices"][0] for part in parts]
    assert "".join(c["text"] for c in choices) == whole["text"]
    assert [t for c in choices for t in c["tokens"]] == whole["tokens"]
    assert last["usage"]["completion_tokens"] == len(whole["token_ids"])
    assert done == "[DONE]"


def test_concurrent_clients_get_what_each_gets_alone(real):
    calls = [
        {"prompt": f"{PROMPT} {i}", "max_tokens": 12, "seed": i, "logprobs": 2} for i in range(6)
    ]
    alone = [real.generate(**call)["choices"] for call in calls]
    together = [None] * len(calls)

    def run(i):
        together[i] = real.generate(**calls[i])["choices"]

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone


def test_nasty_text_survives_the_tokenizer(real):
    tokens = real.post("/tokenize", {"prompt": NASTY, "add_special_tokens": False}).json()
    assert real.post("/detokenize", {"tokens": tokens["tokens"]}).json()["prompt"] == NASTY
    spelled = b"".join(bytes(piece["bytes"]) for piece in tokens["pieces"])
    assert spelled == NASTY.encode()
    for piece in tokens["pieces"]:
        assert bytes(piece["bytes"]) in NASTY[piece["start"] : piece["end"]].encode()


def test_the_end_of_text_is_one_token(real):
    info = real.http.get("/tokenizer_info").json()
    for name in ("bos", "eos"):
        asked = {"prompt": info[f"{name}_token"], "add_special_tokens": False}
        assert real.post("/tokenize", asked).json()["tokens"] == [info[f"{name}_token_id"]]


def test_props_tell_of_the_one_tied_matrix(real):
    props = real.http.get("/props").json()
    assert props["tie"]["tied"]
    assert props["tie"]["shares_storage"]
    assert props["tie"]["embedding_bytes"] % (4 * props["vocab_size"]) == 0
    assert props["context_length"] == 1024


def test_a_temperature_scales_the_logits(real):
    [raw] = probabilities(real, top_k=3)
    [cold] = probabilities(real, top_k=3, temperature=0.5)
    for before, after in zip(raw["top"], cold["top"], strict=True):
        assert after["logit"] == before["logit"]
        assert after["logprob"] == pytest.approx(
            before["logit"] / 0.5 - cold["logsumexp"], abs=1e-4
        )
    assert math.isclose(raw["top_mass"], sum(t["probability"] for t in raw["top"]), rel_tol=1e-12)


def run(*arguments):
    return subprocess.run(
        [*TIEDLM, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    ).stdout


def test_a_prompt_is_continued_without_a_server(real):
    model = real.http.get("/props").json()["model"]
    served = real.generate(PROMPT, max_tokens=4, temperature=0)["choices"][0]["text"]
    assert run("generate", model, PROMPT, "--max-tokens", "4") == served + "\n"


def test_inspecting_a_model_tells_what_is_served(real):
    props = real.http.get("/props").json()
    told = run("inspect", props["model"])
    assert props["model_sha256"] in told
    assert f"{props['parameters']:,}" in told


def best_of_asker(real, seed):
    def ask(**more):
        common = {"max_tokens": 4, "temperature": 2.0, "seed": seed, "logprobs": 0, "top_k": 3}
        body = {"prompt": "The capital of France is", "ignore_eos": True} | common | more
        answer = real.post("/v1/completions", body)
        assert answer.status_code == 200, answer.text
        return answer.json()["choices"]

    return ask


def ranked(choices):
    def total(choice):
        return sum(choice["logprobs"]["token_logprobs"])

    return [choice["text"] for choice in sorted(choices, key=total, reverse=True)]


def test_the_best_of_several_are_ranked_by_the_models_own_log_probabilities(real):
    """Whatever is told: by processed ones, among the top three, they would come otherwise."""
    for seed in range(11, 31):
        ask = best_of_asker(real, seed)
        raw, processed = ask(n=6), ask(n=6, logprobs_mode="processed")
        if ranked(raw) != ranked(processed):
            break
    assert ranked(raw) != ranked(processed)
    assert [choice["text"] for choice in ask(n=4, best_of=6)] == ranked(raw)[:4]
    best = ask(n=4, best_of=6, logprobs_mode="processed")
    assert [choice["text"] for choice in best] == ranked(raw)[:4]
    told = {choice["text"]: choice["logprobs"]["token_logprobs"] for choice in processed}
    assert all(choice["logprobs"]["token_logprobs"] == told[choice["text"]] for choice in best)
