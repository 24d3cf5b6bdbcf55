import pytest

from tests.end_to_end.running import events
from tests.scripted import BOS, CONTEXT, EOS

GREEDY = {"temperature": 0, "add_special_tokens": False}


def choice(server, prompt, **fields):
    [only] = server.generate(prompt, **(GREEDY | fields))["choices"]
    return only


def stream(server, prompt, **fields):
    body = {"prompt": prompt, "stream": True} | GREEDY | fields
    with server.http.stream("POST", "/generate", json=body) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["x-accel-buffering"] == "no"
        assert response.headers["cache-control"] == "no-store"
        return list(events(response))


def joined(told):
    """A stream's events put together as the whole answer has them."""
    *parts, last, done = told
    assert done == "[DONE]"
    choices = {}
    for part in parts:
        [new] = part["choices"]
        whole = choices.setdefault(
            new["index"], {"index": new["index"], "text": "", "token_ids": []}
        )
        for name in ("text", "token_ids", "tokens"):
            if name in new:
                whole[name] = whole.get(name, type(new[name])()) + new[name]
        assert whole.get("finish_reason") is None
        whole |= {name: new[name] for name in ("finish_reason", "stop_reason")}
    return {**last, "choices": [choices[i] for i in sorted(choices)]}


def same(answer):
    """What may differ between two runs of one call is left out."""
    return {name: answer[name] for name in answer if name not in ("id", "created", "timings")}


def test_an_answer_has_the_documented_shape(server):
    answer = server.generate("abc", max_tokens=4, temperature=0)
    assert answer["object"] == "generation"
    assert answer["model"] == "echo"
    assert answer["choices"][0]["token_ids"] == [BOS, *b"abc"]
    assert answer["usage"] == {
        "prompt_tokens": 4,
        "completion_tokens": 4,
        "total_tokens": 8,
        "cached_tokens": 0,
    }
    assert answer["computed"] == {
        "precision": "float32",
        "logits_dtype": "float32",
        "logprobs_mode": "raw",
        "cached_tokens": 0,
        "model_sha256": "0" * 64,
        "deterministic": True,
    }
    assert set(answer["timings"]) == {"queue_ms", "prefill_ms", "decode_ms", "tokens_per_second"}


@pytest.mark.parametrize(
    "fields",
    [
        {"max_tokens": 12},
        {"max_tokens": 12, "logprobs": 3, "prompt_logprobs": 2},
        {
            "max_tokens": 9,
            "logprobs": 0,
            "logprobs_mode": "processed",
            "temperature": 0.8,
            "seed": 3,
        },
        {"max_tokens": 30, "stop": ["😀x", "zz"]},
        {"max_tokens": 30, "stop": "x", "include_stop": True, "logprobs": 1},
        {"max_tokens": 7, "n": 3, "temperature": 1.5, "seed": -5, "prompt": ["ab", "é世"]},
        {"max_tokens": 0, "prompt_logprobs": 1},
    ],
)
def test_a_stream_put_together_is_the_whole_answer(server, fields):
    fields = {"prompt": "é世😀x"} | fields
    whole = server.generate(**(GREEDY | fields))
    assert same(joined(stream(server, **fields))) | {"usage": None, "computed": None} == same(
        whole
    ) | {"usage": None, "computed": None}


def test_a_stream_never_splits_a_character(server):
    told = stream(server, "é世😀", max_tokens=27, logprobs=0)
    texts = [part["choices"][0]["text"] for part in told[:-2]]
    assert "".join(texts) == "é世😀" * 3
    assert set(texts) == {"", "é", "世", "😀"}
    offsets = [t["offset"] for part in told[:-2] for t in part["choices"][0]["tokens"]]
    assert offsets[:9] == [0, 0, 1, 1, 1, 2, 2, 2, 2]


def test_a_character_that_is_never_finished_is_told_at_the_end(server):
    assert choice(server, "世", max_tokens=5)["text"] == "世\ufffd"


@pytest.mark.parametrize("stop", ["END", "\n\nEND", "xEND"])
def test_a_stop_string_over_several_tokens_is_never_leaked(server, stop):
    prompt = "ab\n\nEND" if "\n" in stop else "abxEND"
    told = stream(server, prompt, max_tokens=30, stop=[stop, "never"])
    text = "".join(part["choices"][0]["text"] for part in told[:-2])
    assert text == prompt[: prompt.index(stop)]
    last = told[-3]["choices"][0]
    assert (last["finish_reason"], last["stop_reason"]) == ("stop", stop)


def test_tokens_of_a_stop_string_are_counted_but_not_shown(server):
    answer = server.generate("abEND", max_tokens=30, stop="END", **GREEDY)
    assert answer["choices"][0]["text"] == "ab"
    assert bytes(answer["choices"][0]["token_ids"]) == b"abEND"
    assert answer["usage"]["completion_tokens"] == 5


def test_a_stop_string_that_is_included_is_shown(server):
    assert choice(server, "abEND", stop="END", include_stop=True)["text"] == "abEND"


def test_the_models_end_token_stops_without_a_reason_and_is_not_shown(server):
    told = choice(server, "abc\x03", max_tokens=20)
    assert told == {
        "index": 0,
        "text": "abc",
        "token_ids": [*b"abc", EOS],
        "finish_reason": "stop",
        "stop_reason": None,
    }


def test_ignore_eos_goes_on_past_the_end_token(server):
    told = choice(server, "ab\x03", max_tokens=5, ignore_eos=True)
    assert told["token_ids"] == [*b"ab", EOS, *b"ab"]
    assert (told["text"], told["finish_reason"]) == ("abab", "length")


def test_a_stop_token_id_is_its_own_reason(server):
    told = choice(server, "abc", stop_token_ids=[ord("b")])
    assert (told["text"], told["stop_reason"], told["finish_reason"]) == ("a", ord("b"), "stop")
    assert told["token_ids"] == [*b"ab"]
    assert choice(server, "abc", stop_token_ids=[98], include_stop=True)["text"] == "ab"


def test_min_tokens_holds_off_every_kind_of_stop(server):
    assert choice(server, "abc", stop="c", min_tokens=4)["text"] == "abcab"
    assert choice(server, "ab\x03", min_tokens=4, max_tokens=6)["token_ids"][2] != EOS
    told = choice(server, "abc", stop_token_ids=[98], min_tokens=3, max_tokens=9)
    assert told["token_ids"][:2] != [*b"ab"]


def test_several_prompts_and_choices_are_prompt_major(server):
    answer = server.generate(["ab", "xyz"], n=2, max_tokens=3, **GREEDY)
    texts = [(c["index"], c["text"]) for c in answer["choices"]]
    assert texts == [(0, "aba"), (1, "aba"), (2, "xyz"), (3, "xyz")]
    assert answer["usage"]["prompt_tokens"] == 5
    assert answer["usage"]["completion_tokens"] == 12


def test_the_four_forms_of_a_prompt_are_one(server):
    expected = choice(server, "ab", max_tokens=4)
    for prompt in (["ab"], [97, 98], [[97, 98]]):
        assert choice(server, prompt, max_tokens=4) == expected


def test_a_seed_gives_the_same_choices_and_the_first_of_n_is_that_of_one(server):
    hot = {"temperature": 3.0, "max_tokens": 12, "seed": 11}
    one = choice(server, "abc", **hot)["text"]
    many = [c["text"] for c in server.generate("abc", **(GREEDY | hot), n=4)["choices"]]
    assert many[0] == one
    assert len(set(many)) == 4
    assert [c["text"] for c in server.generate("abc", **(GREEDY | hot), n=4)["choices"]] == many


def test_without_a_seed_choices_differ(server):
    not_the_order_to_fail = {"1": -100}
    fields = {"temperature": 3.0, "logit_bias": not_the_order_to_fail}
    answer = server.generate("abc", max_tokens=12, n=4, **fields)
    assert len({c["text"] for c in answer["choices"]}) == 4


def test_log_probabilities_are_the_same_floats_everywhere(server):
    told = choice(server, "abc", max_tokens=1, logprobs=5)["tokens"][0]
    body = {"prompt": "abc", "top_k": 5, "ids": [told["id"]], "full": "json"}
    found = server.post("/next-token-probabilities", body | {"add_special_tokens": False})
    [result] = found.json()["results"]
    assert result["selected"][0]["logprob"] == told["logprob"]
    assert result["distribution"][told["id"]] == told["logprob"]
    assert [(t["id"], t["logprob"], t["rank"]) for t in told["top"]] == [
        (t["id"], t["logprob"], t["rank"]) for t in result["top"]
    ]


def test_prompt_log_probabilities_are_those_of_the_next_token(server):
    answer = server.generate("abcd", max_tokens=0, prompt_logprobs=2, **GREEDY)
    [prompt] = answer["prompts"]
    assert prompt["token_ids"] == [*b"abcd"]
    first, *rest = prompt["tokens"]
    assert (first["logprob"], first["top"]) == (None, [])
    assert [len(t["top"]) for t in rest] == [2, 2, 2]
    assert answer["choices"][0]["token_ids"] == []
    assert answer["choices"][0]["finish_reason"] == "length"


def test_a_bias_and_a_mask_change_what_is_drawn(server):
    assert choice(server, "abc", max_tokens=2, logit_bias={"122": 100})["text"] == "zz"
    only = choice(server, "abc", max_tokens=6, allowed_token_ids=[120, 121])
    assert set(only["token_ids"]) <= {120, 121}


def test_an_empty_text_starts_from_bos_once(server):
    for prompt in ("", [""]):
        for adds in (True, False):
            answer = server.generate(
                prompt, max_tokens=1, prompt_logprobs=0, temperature=0, add_special_tokens=adds
            )
            assert answer["prompts"][0]["token_ids"] == [BOS]


def test_special_text_in_a_prompt_is_the_token_unless_it_is_not_to_be(server):
    def ids(**fields):
        answer = server.generate("<s>a", max_tokens=0, prompt_logprobs=0, **(GREEDY | fields))
        return answer["prompts"][0]["token_ids"]

    assert ids() == [BOS, 97]
    assert ids(parse_special=False) == [*b"<s>a"]
    assert ids() == [BOS, 97]


def test_max_tokens_absent_is_cut_to_what_is_left(server):
    prompt = [97] * (CONTEXT - 5)
    assert len(choice(server, prompt)["token_ids"]) == 5
    assert choice(server, [97] * CONTEXT)["token_ids"] == []


def test_a_prompt_seen_before_is_found_in_the_cache(server):
    prompt = [7] * 40
    first = server.generate([prompt], max_tokens=1, **GREEDY)
    again = server.generate([prompt], max_tokens=1, **GREEDY)
    assert first["usage"]["cached_tokens"] == 0
    assert again["usage"]["cached_tokens"] == again["computed"]["cached_tokens"] == 32
    assert again["choices"] == first["choices"]
