import pytest

from tests.end_to_end.running import Server

KEYS = ("--api-key", "first key", "--api-key", "schlüssel")
OPEN = {("get", "/health"), ("get", "/ready")}


@pytest.fixture(scope="module")
def locked():
    with Server(*KEYS, "--cors-origin", "https://app.example") as server:
        yield server.ready()


def routes(server):
    document = server.http.get("/openapi.json", headers={"x-api-key": "first key"}).json()
    told = {(m, path) for path, methods in document["paths"].items() for m in methods}
    return told | {("get", "/"), ("get", "/docs"), ("get", "/openapi.json"), ("get", "/no-such")}


def test_every_route_but_two_needs_a_key(locked):
    for method, path in sorted(routes(locked) - OPEN):
        answer = locked.http.request(method, path)
        assert answer.status_code == 401, path
        assert answer.json()["error"]["type"] == "authentication_error"
        assert answer.json()["error"]["code"] == "invalid_api_key"
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.headers["x-request-id"]


@pytest.mark.parametrize("path", ["/health", "/ready"])
def test_two_routes_need_none(locked, path):
    assert locked.http.get(path).status_code == 200
    assert locked.http.head(path).status_code == 200
    assert locked.http.post(path).status_code == 401


@pytest.mark.parametrize(
    "target",
    ["//health", "/health/", "/health/../props", "/HEALTH", "/%68ealth/../props", "/props?/health"],
)
def test_a_path_that_looks_open_is_not(locked, target):
    request = f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    assert locked.raw(request).status == 401


def test_a_target_with_a_host_does_not_choose_the_path(locked):
    request = b"GET http://localhost/health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert locked.raw(request).status == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer first key"},
        {"authorization": "bearer first key"},
        {"x-api-key": "first key"},
        {"x-api-key": "schlüssel".encode()},
        {"authorization": "Bearer schlüssel".encode()},
    ],
)
def test_a_key_opens(locked, headers):
    assert locked.http.get("/props", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer first"},
        {"authorization": "Bearer"},
        {"authorization": "first key"},
        {"authorization": "Basic first key"},
        {"x-api-key": b"schl\xfcssel"},
        {"x-api-key": ""},
    ],
)
def test_another_key_does_not(locked, headers):
    assert locked.http.get("/props", headers=headers).status_code == 401


def test_keys_do_not_share_a_prefix_cache(locked):
    prompt = {"prompt": [9] * 40, "max_tokens": 1}
    mine, other = {"x-api-key": "first key"}, {"x-api-key": "schlüssel".encode()}

    def cached(headers):
        answer = locked.post("/generate", prompt, headers=headers)
        return answer.json()["usage"]["cached_tokens"]

    assert [cached(mine), cached(other), cached(mine), cached(other)] == [0, 0, 32, 32]


@pytest.mark.parametrize(("mode", "again"), [("shared", 32), ("off", 0)])
def test_the_prefix_cache_can_be_shared_or_off(mode, again):
    with Server("--prefix-cache", mode, *KEYS) as server:
        server.ready()
        found = [
            server.post(
                "/generate", {"prompt": [9] * 40, "max_tokens": 1}, headers={"x-api-key": k}
            )
            for k in (b"first key", "schlüssel".encode())
        ]
        assert [answer.json()["usage"]["cached_tokens"] for answer in found] == [0, again]


def test_only_a_listed_origin_gets_cors_headers(locked):
    for origin, is_listed in (("https://app.example", True), ("https://evil.example", False)):
        answer = locked.http.get("/health", headers={"origin": origin})
        assert (answer.headers.get("access-control-allow-origin") == origin) is is_listed
        asked = {"origin": origin, "access-control-request-method": "POST"}
        preflight = locked.http.options("/generate", headers=asked)
        assert (preflight.status_code == 204) is is_listed
        assert ("access-control-allow-origin" in preflight.headers) is is_listed


def test_without_a_list_no_origin_gets_any(server):
    for method in ("GET", "OPTIONS"):
        headers = {"origin": "null", "access-control-request-method": "GET"}
        answer = server.http.request(method, "/health", headers=headers)
        assert not [name for name in answer.headers if name.startswith("access-control")]
