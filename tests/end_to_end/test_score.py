"""POST /score and POST /surprisal: what surrounds the numbers, with the scripted model."""

import json
import math
import time

import pytest

from tests.end_to_end.running import eventually, is_idle, request_bytes
from tests.scripted import BOS, CONTEXT, SLOW, VOCAB_SIZE


def score(server, prompt, continuations, **fields):
    body = {"prompt": prompt, "continuations": continuations, "add_special_tokens": False}
    answer = server.post("/score", body | fields)
    assert answer.status_code == 200, answer.text
    return answer.json()


def surprisal(server, text, **fields):
    answer = server.post("/surprisal", {"text": text} | fields)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_scores_have_the_documented_shape(server):
    answer = score(server, "abc", ["a", "xy", [120, 121, 122], "a"])
    assert (answer["object"], answer["usage"]["prompt_tokens"]) == ("score", 3)
    assert answer["usage"]["completion_tokens"] == 7
    [result] = answer["results"]
    assert result["context_token_ids"] == [97, 98, 99]
    first, second, third, again = result["continuations"]
    assert (first["text"], first["token_ids"], first["is_greedy"]) == ("a", [97], True)
    assert (third["text"], third["token_ids"], third["is_greedy"]) == (
        "xyz",
        [120, 121, 122],
        False,
    )
    assert again == first | {"index": 3}
    assert second["logprob"] == math.fsum(second["token_logprobs"])
    assert second["mean_logprob"] == pytest.approx(second["logprob"] / 2)
    assert second["score"] == second["logprob"]
    assert result["best"] == 0
    total = math.fsum(math.exp(each["logprob"]) for each in result["continuations"])
    assert result["label_mass"] == pytest.approx(total, rel=1e-12)
    shares = [math.exp(each["logprob"]) / total for each in result["continuations"]]
    assert [each["probability"] for each in result["continuations"]] == pytest.approx(shares)


def test_scores_are_normalised_as_asked(server):
    texts = ["é", "ab", "世界"]
    for normalize, name in (("mean", "mean_logprob"), ("bytes", "logprob_per_byte")):
        [result] = score(server, "abc", texts, normalize=normalize)["results"]
        for text, told in zip(texts, result["continuations"], strict=True):
            assert told["score"] == told[name]
            assert told["logprob_per_byte"] == told["logprob"] / len(text.encode())


def test_a_baseline_is_subtracted(server):
    texts = ["a", "xy"]
    [plain] = score(server, "abc", texts)["results"]
    [base] = score(server, "q", texts)["results"]
    [result] = score(server, "abc", texts, baseline="q")["results"]
    for told, own, other in zip(
        result["continuations"], plain["continuations"], base["continuations"], strict=True
    ):
        assert told["logprob"] == own["logprob"]
        assert told["score"] == own["logprob"] - told["baseline_logprob"]
        assert told["baseline_logprob"] == pytest.approx(other["logprob"])


def test_several_prompts_have_a_result_each(server):
    results = score(server, ["abc", "cab"], ["a", "c"])["results"]
    assert [(result["index"], result["best"]) for result in results] == [(0, 0), (1, 1)]
    [alone] = score(server, "cab", ["a", "c"])["results"]
    assert results[1]["continuations"] == alone["continuations"]


def test_what_is_impossible_has_a_number(server):
    [result] = score(server, "ab", [[VOCAB_SIZE - 1], [VOCAB_SIZE - 1, 97]])["results"]
    one, two = result["continuations"]
    assert (one["logprob"], one["logprob_per_byte"], one["score"]) == (-9999.0, None, -9999.0)
    assert two["token_logprobs"][0] == -9999.0
    [result] = score(server, "ab", [[VOCAB_SIZE - 1]], baseline="c")["results"]
    assert (result["continuations"][0]["score"], result["label_mass"]) == (0.0, 0.0)


def test_as_many_continuations_as_are_allowed(server):
    texts = [[32 + i % 64, 32 + i // 64] for i in range(4096)]
    [result] = score(server, "abc", texts)["results"]
    assert [each["token_ids"] for each in result["continuations"]] == texts


def test_a_continuation_may_fill_the_context_and_no_more(server):
    [result] = score(server, [97] * 6, [[97] * (CONTEXT - 6)])["results"]
    assert len(result["continuations"][0]["token_logprobs"]) == CONTEXT - 6
    body = {"prompt": [97] * 6, "continuations": [[97], [97] * (CONTEXT - 5)]}
    error = server.post("/score", body).json()["error"]
    assert (error["code"], error["param"]) == ("context_length_exceeded", "continuations.1")


def test_a_prompt_is_found_in_the_cache(server):
    prompt = list(range(30, 80))
    score(server, prompt, ["a"])
    assert score(server, prompt, ["b"])["usage"]["cached_tokens"] == 48


@pytest.mark.parametrize("path", ["/score", "/surprisal"])
def test_a_client_that_leaves_frees_its_place(server, path):
    eventually(lambda: is_idle(server))
    texts = [SLOW + chr(97 + i % 26) + chr(97 + i // 26) for i in range(600)]
    body = {"prompt": SLOW, "continuations": texts}
    if path == "/surprisal":
        body = {"text": [SLOW + text * 50 for text in texts[:100]], "window": 4, "stride": 1}
    connection = server.connect()
    connection.sendall(request_bytes(json.dumps(body).encode(), path))
    eventually(lambda: server.metric("num_requests_running") >= 1)
    began = time.monotonic()
    assert server.generate("ab", max_tokens=1)["choices"]  # beside it
    connection.close()
    eventually(lambda: is_idle(server))
    assert time.monotonic() - began < 2


def test_surprisals_have_the_documented_shape(server):
    answer = surprisal(server, ["ab é", "x"], unit="nats", by="word")
    assert (answer["object"], answer["unit"]) == ("surprisal", "nats")
    first, second = answer["results"]
    assert (first["index"], second["index"], first["bos"]) == (0, 1, True)
    assert [t["id"] for t in first["tokens"]] == list("ab é".encode())
    assert [(t["start"], t["end"]) for t in first["tokens"]] == [
        (0, 1),
        (1, 2),
        (2, 3),
        *[(3, 4)] * 2,
    ]
    assert all(t["surprisal"] >= 0 and t["rank"] >= 1 for t in first["tokens"])
    assert [w["text"] for w in first["words"]] == ["ab", "é"]
    assert [(w["first_token"], w["num_tokens"]) for w in first["words"]] == [(0, 2), (2, 3)]
    totals = first["totals"]
    assert (totals["tokens"], totals["scored_tokens"], totals["words"]) == (5, 5, 2)
    assert (totals["characters"], totals["bytes"]) == (4, 5)
    nats = math.fsum(t["surprisal"] for t in first["tokens"])
    assert totals["surprisal"] == pytest.approx(nats, rel=1e-12)
    assert totals["perplexity"] == pytest.approx(math.exp(nats / 5))
    assert totals["bits_per_byte"] == pytest.approx(nats / math.log(2) / 5)
    assert totals["bits_per_character"] == pytest.approx(nats / math.log(2) / 4)


def test_bits_are_nats_over_the_logarithm_of_two(server):
    [bits], [nats] = (surprisal(server, "abc", unit=unit)["results"] for unit in ("bits", "nats"))
    for one, other in zip(bits["tokens"], nats["tokens"], strict=True):
        assert one["surprisal"] == other["surprisal"] / math.log(2)
        assert one["entropy"] == other["entropy"] / math.log(2)
    assert bits["totals"]["perplexity"] == nats["totals"]["perplexity"]
    assert bits["words"] is None


def test_without_bos_nothing_is_said_of_the_first_token(server):
    [result] = surprisal(server, "ab cd", bos=False, by="word")["results"]
    first = result["tokens"][0]
    assert (first["surprisal"], first["rank"], first["entropy"]) == (None, None, None)
    assert (result["bos"], result["totals"]["scored_tokens"], result["totals"]["tokens"]) == (
        False,
        4,
        5,
    )
    assert result["words"][0]["surprisal"] is None
    assert result["words"][1]["surprisal"] is not None
    [alone] = surprisal(server, "a", bos=False)["results"]
    assert (alone["totals"]["surprisal"], alone["totals"]["perplexity"]) == (0.0, None)


def test_a_text_longer_than_the_context_is_scored_by_windows(server):
    [result] = surprisal(server, "abcdefgh" * 100)["results"]
    assert result["totals"]["scored_tokens"] == 800
    assert all(token["surprisal"] is not None for token in result["tokens"])
    [disjoint] = surprisal(server, "abcdefgh" * 100, window=101, stride=101)["results"]
    assert disjoint["totals"]["scored_tokens"] == 800 - 7  # the first of each later window


def test_a_model_that_adds_bos_has_it_before_each_text_unless_told_not_to(server):
    usage = surprisal(server, ["ab", "c"])["usage"]
    assert usage["prompt_tokens"] == 2 + 3
    assert surprisal(server, ["ab", "c"], bos=False)["usage"]["prompt_tokens"] == 3
    assert server.http.get("/tokenizer_info").json()["bos_token_id"] == BOS
