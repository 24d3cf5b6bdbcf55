"""/v1/completions and /v1/models on the scripted model: what OpenAI's clients and lm-eval read."""

import pytest

from tests.end_to_end.running import Server, events
from tests.scripted import BOS, EOS

IDS = [*b"abcab"]
GREEDY = {"temperature": 0, "add_special_tokens": False}


def complete(server, prompt, **fields):
    answer = server.post("/v1/completions", {"prompt": prompt} | GREEDY | fields)
    assert answer.status_code == 200, answer.text
    return answer.json()


def refused(server, path="/v1/completions", **fields):
    answer = server.post(path, {"prompt": "a"} | fields)
    error = answer.json()["error"]
    return answer.status_code, error["code"], error["param"]


def stream(server, prompt, **fields):
    body = {"prompt": prompt, "stream": True} | GREEDY | fields
    with server.http.stream("POST", "/v1/completions", json=body) as response:
        assert response.status_code == 200, response.read()
        return list(events(response))


def joined(told):
    """A stream's choices as the whole answer has them."""
    choices = {}
    for part in told[:-1]:
        for new in part["choices"]:
            whole = choices.setdefault(new["index"], {**new, "text": ""})
            whole["text"] += new["text"]
            if new["logprobs"] is not None and whole["logprobs"] is not new["logprobs"]:
                for name, values in new["logprobs"].items():
                    whole["logprobs"][name] += values
            whole |= {name: new[name] for name in ("finish_reason", "stop_reason")}
    return [choices[i] for i in sorted(choices)]


def test_the_one_model_is_listed(server):
    [card] = server.http.get("/v1/models").json()["data"]
    assert (card["id"], card["object"]) == ("echo", "model")
    assert server.http.get("/v1/models/echo").json() == card
    assert server.http.head("/v1/models").status_code == 200
    missing = server.http.get("/v1/models/some/other")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")


def test_a_model_may_have_a_name_with_a_slash():
    with Server("--model-name", "org/name") as named:
        named.ready()
        assert named.http.get("/v1/models/org/name").json()["id"] == "org/name"
        assert complete(named, "ab", model="org/name", max_tokens=1)["model"] == "org/name"


def test_an_answer_has_openais_shape(server):
    answer = complete(server, "abc", max_tokens=4, model="echo")
    assert answer["object"] == "text_completion"
    assert answer["id"].startswith("cmpl-")
    assert answer["choices"] == [
        {
            "index": 0,
            "text": "abca",
            "logprobs": None,
            "finish_reason": "length",
            "stop_reason": None,
        }
    ]
    assert answer["usage"]["total_tokens"] == 7


def test_sixteen_tokens_are_generated_unless_asked_otherwise(server):
    assert complete(server, "ab")["usage"]["completion_tokens"] == 16
    assert complete(server, "ab", max_tokens=None)["usage"]["completion_tokens"] == 16


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [
        ("ab", ["aba"]),
        (["ab", "cd"], ["aba", "cdc"]),
        ([97, 98], ["aba"]),
        ([[97, 98], [99, 100]], ["aba", "cdc"]),
    ],
)
def test_a_prompt_is_text_ids_or_lists_of_them(server, prompt, texts):
    choices = complete(server, prompt, max_tokens=3)["choices"]
    assert [choice["text"] for choice in choices] == texts
    assert [choice["index"] for choice in choices] == list(range(len(texts)))


def test_what_lm_eval_asks_for_is_one_longer_than_the_prompt(server):
    body = {"max_tokens": 1, "logprobs": 1, "echo": True, "seed": 1234}
    [choice] = complete(server, [IDS], **body)["choices"]
    logprobs = choice["logprobs"]
    assert {len(values) for values in logprobs.values()} == {len(IDS) + 1}
    for name in ("token_logprobs", "top_logprobs", "top_logprobs_list"):
        assert logprobs[name][0] is None
    for i in range(1, len(IDS) + 1):
        name, own = logprobs["tokens"][i], logprobs["token_logprobs"][i]
        top, listed = logprobs["top_logprobs"][i], logprobs["top_logprobs_list"][i]
        assert top[name] == own
        assert max(top.values()) == listed[0]["logprob"] >= own
        assert listed[0]["rank"] == 1


def test_an_end_token_drawn_first_is_an_entry_all_the_same(server):
    body = {"max_tokens": 1, "logprobs": 1, "echo": True}
    [choice] = complete(server, [[97, 98, 3]], **body, stop_token_ids=[97])["choices"]
    assert choice["text"] == "ab\x03"
    assert choice["logprobs"]["tokens"][3] == "a"
    assert len(choice["logprobs"]["token_logprobs"]) == 4
    [ended] = complete(server, [[3, 98]], **body)["choices"]
    assert (ended["finish_reason"], ended["logprobs"]["tokens"][2]) == ("stop", "</s>")
    assert ended["text"] == "\x03b"


def test_scores_are_those_of_the_native_route(server):
    native = server.generate([IDS], max_tokens=0, prompt_logprobs=2)["prompts"][0]["tokens"]
    [choice] = complete(server, [IDS], max_tokens=0, echo=True, logprobs=2)["choices"]
    assert choice["text"] == "abcab"
    assert choice["logprobs"]["token_logprobs"] == [token["logprob"] for token in native]
    listed = choice["logprobs"]["top_logprobs_list"][1:]
    assert [top[:2] for top in listed] == [token["top"] for token in native[1:]]


def test_tokens_of_one_text_do_not_hide_each_other(server):
    """Bytes of a character are tokens here: most have the one text U+FFFD."""
    ids = [*"é世é世".encode()]
    [choice] = complete(server, [ids], max_tokens=0, echo=True, logprobs=20)["choices"]
    logprobs = choice["logprobs"]
    for name, own, top, listed in list(
        zip(*(logprobs[name] for name in list(logprobs) if name != "text_offset"), strict=True)
    )[1:]:
        assert len(top) == len(listed) >= 20
        assert top[name] == own
        assert sorted(top.values()) == sorted(one["logprob"] for one in listed)


def test_offsets_are_characters_of_the_text_that_is_answered(server):
    fields = {"max_tokens": 6, "logprobs": 0}
    [echoed] = complete(server, "é世ab", echo=True, **fields)["choices"]
    assert echoed["text"].startswith("é世ab")
    assert echoed["logprobs"]["text_offset"][:7] == [0, 0, 1, 1, 1, 2, 3]
    assert echoed["logprobs"]["text_offset"][7:] == [4, 4, 5, 5, 5, 6]
    [plain] = complete(server, "é世ab", **fields)["choices"]
    assert plain["logprobs"]["text_offset"] == [0, 0, 1, 1, 1, 2]


def test_an_echo_has_the_token_that_the_tokenizer_adds_but_not_its_text(server):
    fields = {"add_special_tokens": True, "echo": True, "logprobs": 0, "max_tokens": 0}
    [choice] = complete(server, "ab", **fields)["choices"]
    assert choice["text"] == "ab"
    assert choice["logprobs"]["tokens"] == ["<s>", "a", "b"]
    assert choice["logprobs"]["text_offset"] == [0, 0, 1]
    [by_ids] = complete(server, [[BOS, 97]], echo=True, max_tokens=0)["choices"]
    assert by_ids["text"] == "<s>a"


@pytest.mark.parametrize(
    "fields",
    [
        {"max_tokens": 12},
        {"max_tokens": 5, "echo": True, "logprobs": 2},
        {"max_tokens": 5, "echo": True, "logprobs": 2, "n": 3, "temperature": 1.5, "seed": 4},
        {"max_tokens": 0, "echo": True, "logprobs": 1},
        {"max_tokens": 30, "stop": ["世a"], "logprobs": 0},
    ],
)
def test_a_stream_put_together_is_the_whole_answer(server, fields):
    whole = complete(server, ["é世a", "xyz"], **fields)["choices"]
    told = stream(server, ["é世a", "xyz"], **fields)
    assert told[-1] == "[DONE]"
    assert joined(told) == whole


def test_usage_is_streamed_only_where_it_is_asked_for(server):
    plain = stream(server, "ab", max_tokens=2)
    assert all(part["choices"] and "usage" not in part for part in plain[:-1])
    asked = stream(server, "ab", max_tokens=2, stream_options={"include_usage": True})
    assert all(part["usage"] is None for part in asked[:-2])
    assert asked[-2]["choices"] == []
    assert asked[-2]["usage"]["completion_tokens"] == 2
    code = refused(server, stream_options={"include_usage": True})
    assert code == (400, "invalid_value", "stream_options")


def test_the_best_of_several_are_the_likeliest_of_all(server):
    fields = {"max_tokens": 3, "temperature": 2.0, "seed": 11, "logprobs": 0}
    every = complete(server, "ab", n=6, **fields)["choices"]
    best = complete(server, "ab", n=2, best_of=6, **fields)

    def mean(choice):
        return sum(choice["logprobs"]["token_logprobs"]) / len(choice["logprobs"]["tokens"])

    expected = sorted(every, key=mean, reverse=True)[:2]
    assert [choice["text"] for choice in best["choices"]] == [c["text"] for c in expected]
    assert [choice["index"] for choice in best["choices"]] == [0, 1]
    drawn = sum(len(choice["logprobs"]["tokens"]) for choice in every)
    assert best["usage"]["completion_tokens"] == drawn
    assert refused(server, n=3, best_of=2) == (400, "invalid_value", "best_of")
    assert refused(server, best_of=65) == (400, "invalid_value", "best_of"), "it was called n"
    many = refused(server, prompt=["a"] * 33, best_of=2)
    assert many == (400, "invalid_value", "best_of")
    assert refused(server, best_of=2, stream=True) == (400, "invalid_value", "best_of")


def test_null_is_as_good_as_absent(server):
    names = (
        "model max_tokens temperature top_p n stream stream_options logprobs echo stop "
        "presence_penalty frequency_penalty best_of logit_bias user suffix seed top_k "
        "response_format allowed_token_ids"
    )
    answer = server.post("/v1/completions", {"prompt": "ab", **dict.fromkeys(names.split())})
    assert answer.status_code == 200, answer.text
    assert "x-ignored-fields" not in answer.headers


def test_fields_that_nobody_knows_are_named(server):
    body = {"prompt": "ab", "max_tokens": 1, "foo": 1, "bår\r\n": 2, "user": "me"}
    answer = server.post("/v1/completions", body)
    assert answer.headers["x-ignored-fields"] == "foo, b%C3%A5r%0D%0A"
    unnamed = server.post("/v1/completions", {"prompt": "ab", "max_tokens": 1, "foo": 1, "": 2})
    assert unnamed.headers["x-ignored-fields"] == 'foo, ""', "the connection used to be closed"
    options = {"include_usage": True, "continuous_usage_stats": True}
    streamed = server.post("/v1/completions", body | {"stream": True, "stream_options": options})
    assert "stream_options.continuous_usage_stats" in streamed.headers["x-ignored-fields"]


def test_what_is_not_supported_is_refused_by_name(server):
    assert refused(server, suffix="x") == (400, "unsupported_parameter", "suffix")
    assert refused(server, suffix="", max_tokens="5") == (400, "invalid_value", "max_tokens")
    assert refused(server, logprobs=21) == (400, "invalid_value", "logprobs")
    assert refused(server, model="gpt-4") == (404, "model_not_found", "model")
    assert refused(server, max_tokens=True) == (400, "invalid_value", "max_tokens")


def test_ids_are_told_where_they_are_asked_for(server):
    fields = {"return_token_ids": True, "return_tokens_as_token_ids": True, "logprobs": 1}
    [choice] = complete(server, [IDS], max_tokens=2, **fields)["choices"]
    assert choice["prompt_token_ids"] == IDS
    assert choice["token_ids"] == [97, 98]
    assert choice["logprobs"]["tokens"] == ["token_id:97", "token_id:98"]
    assert set(choice["logprobs"]["top_logprobs"][0]) == {"token_id:97"}


def test_prompt_logprobs_are_by_id(server):
    [choice] = complete(server, [IDS], max_tokens=1, prompt_logprobs=1)["choices"]
    first, *rest = choice["prompt_logprobs"]
    assert first is None
    for token, told in zip(IDS[1:], rest, strict=True):
        assert {one["rank"] for one in told.values()} >= {1}
        assert told[str(token)]["decoded_token"] == chr(token)


def test_the_end_token_ends_it_and_may_be_ignored(server):
    [ended] = complete(server, "ab\x03", max_tokens=9)["choices"]
    assert (ended["text"], ended["finish_reason"], ended["stop_reason"]) == ("ab", "stop", None)
    answer = complete(server, "ab\x03", max_tokens=9, ignore_eos=True, return_token_ids=True)
    assert answer["choices"][0]["token_ids"].count(EOS) == 3
