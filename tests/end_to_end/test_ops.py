import re

import jsonschema
import pytest
from prometheus_client.parser import text_string_to_metric_families

from server.api.ops import FIXED_LIMITS
from server.settings import LIMITS
from tests.scripted import CONTEXT, VOCAB_SIZE

BODIES = {
    "/generate": {"prompt": ["ab", "c"], "max_tokens": 2, "logprobs": 2, "prompt_logprobs": 1},
    "/next-token-probabilities": {"prompt": "ab", "top_k": 2, "ids": [1], "full": "json"},
    "/score": {"prompt": "ab", "continuations": ["c", "cd", [5]], "baseline": "x"},
    "/surprisal": {"text": ["ab cd", "é"], "by": "word", "unit": "nats"},
    "/tokenize": {"prompt": "ab"},
    "/detokenize": {"tokens": [97]},
    "/v1/completions": {"prompt": ["ab", "c"], "max_tokens": 2, "logprobs": 2, "echo": True},
    "/v1/chat/completions": {
        "messages": [{"role": "user", "content": "ab"}],
        "max_tokens": 2,
        "logprobs": True,
        "top_logprobs": 1,
    },
}


@pytest.fixture(scope="module")
def document(server):
    return server.http.get("/openapi.json").json()


def conforms(value, schema, document):
    jsonschema.Draft202012Validator(schema | {"components": document["components"]}).validate(value)


def test_every_route_answers_what_the_document_says(server, document):
    for path, methods in document["paths"].items():
        for method, told in methods.items():
            made = path.format(name="echo")
            answer = server.http.request(method, made, json=BODIES.get(path))
            assert answer.status_code == 200, (path, answer.text)
            content = told["responses"]["200"]["content"]
            if schema := content.get("application/json", {}).get("schema"):
                conforms(answer.json(), schema, document)


def test_a_whole_distribution_conforms_in_each_form(server, document):
    told = document["paths"]["/next-token-probabilities"]["post"]["responses"]["200"]["content"]
    for full in (False, "json", "base64"):
        answer = server.post("/next-token-probabilities", {"prompt": "ab", "full": full})
        conforms(answer.json(), told["application/json"]["schema"], document)


def test_every_error_the_document_names_has_the_one_shape(server, document):
    for path, methods in document["paths"].items():
        for told in methods.values():
            assert "422" not in told["responses"]
            for status, response in told["responses"].items():
                if status != "200":
                    schema = response["content"]["application/json"]["schema"]
                    conforms(server.http.get("/no-such").json(), schema, document)
            if "requestBody" in told:
                assert {"400", "401", "413", "415", "429", "503"} <= set(told["responses"]), path


def test_the_document_tells_bodies_with_their_bounds(document):
    fields = document["components"]["schemas"]["GenerateBody"]
    assert fields["required"] == ["prompt"]
    assert fields["additionalProperties"] is False
    assert fields["properties"]["top_p"]["exclusiveMinimum"] == 0
    assert len(fields["properties"]["prompt"]["anyOf"]) == 4


def test_props_names_the_model_and_every_limit(server):
    props = server.http.get("/props").json()
    assert (props["vocab_size"], props["context_length"]) == (VOCAB_SIZE, CONTEXT)
    assert props["tie"] == {"tied": True, "embedding_bytes": 0, "shares_storage": True}
    assert set(props["limits"]) == {*LIMITS, *FIXED_LIMITS}
    assert all(value is not None for value in props["limits"].values())
    assert props["limits"]["max_body_bytes"] == 2**20
    assert props["limits"]["read_timeout"] == 1


def test_metrics_count_routes_by_template_and_never_by_path(server):
    server.http.get("/no/such/path?secret")
    server.post("/generate", {"prompt": "a", "max_tokens": 1})
    text = server.http.get("/metrics").text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    samples = families["tiedlm_requests"].samples
    routes = {sample.labels["route"] for sample in samples}
    assert {"/generate", "/metrics", "unmatched"} <= routes | {"/metrics"}
    assert "such" not in text
    assert "secret" not in text


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_a_page_loads_nothing_from_elsewhere(server, path):
    page = server.http.get(path)
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    files = re.findall(r'(?:src|href)="(/[^"]+)"', page.text)
    assert {name.rpartition(".")[2] for name in files} >= {"js", "css"}
    for name in files:
        assert server.http.get(name).status_code == 200
    assert "http" not in page.text


def test_the_playground_uses_the_documented_routes_alone(server):
    script = server.http.get("/playground.js").text
    used = set(re.findall(r'(?:fetch|post)\("(/[^"]+)"', script))
    assert used == {"/generate", "/next-token-probabilities", "/props"}
    assert used <= set(server.http.get("/openapi.json").json()["paths"])


def test_the_version_names_the_server(server):
    told = server.http.get("/version").json()
    assert told["name"] == "tiedlm"
    assert told["version"]


def test_every_answer_has_an_id_and_is_not_to_be_sniffed(server):
    for path in ("/health", "/no-such", "/generate"):
        answer = server.http.get(path)
        assert len(answer.headers["x-request-id"]) == 32
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "server" not in answer.headers
