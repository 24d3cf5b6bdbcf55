import pytest

from server.api.gate import HostCheck, KeyCheck, choose_request_id, host_name, presented_keys


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("localhost", "localhost"),
        ("localhost:8000", "localhost"),
        ("127.0.0.1:80", "127.0.0.1"),
        ("[::1]:80", "::1"),
        ("[::1]", "::1"),
        ("example.com.", "example.com"),
        ("", None),
        ("a b", None),
        ("localhost:", None),
        ("localhost:x", None),
        ("localhost@evil.example", None),
        ("localhost/evil", None),
        ("::1", None),
    ],
)
def test_a_host_header_is_a_name_and_a_port(host, name):
    assert host_name(host) == name


@pytest.mark.parametrize(
    ("host", "is_allowed"),
    [
        ("localhost:1234", True),
        ("127.0.0.1", True),
        ("127.9.9.9:80", True),
        ("[::1]:80", True),
        ("10.0.0.5:80", True),
        ("10.0.0.6", False),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("model.example", True),
        ("model.example:9000", True),
        ("other.example:7", True),
        ("other.example:8", False),
        ("", False),
    ],
)
def test_only_loopback_bound_and_listed_hosts_are_allowed(host, is_allowed):
    check = HostCheck(None, ["model.example", "other.example:7"])
    assert check._is_allowed(host, ("10.0.0.5", 80)) is is_allowed


def test_a_star_allows_every_host():
    assert HostCheck(None, ["*"])._is_allowed("any.example", None)


@pytest.mark.parametrize(
    ("sent", "is_kept"),
    [(b"abc-123", True), (b"x" * 128, True), (b"x" * 129, False), (b"", False), (b"\xe9", False)],
)
def test_a_clients_request_id_is_kept_if_it_is_short_printable_ascii(sent, is_kept):
    chosen = choose_request_id([(b"x-request-id", sent)])
    assert (chosen.encode() == sent) is is_kept
    assert chosen


def keys(*headers):
    return presented_keys({"headers": headers})


def test_a_key_comes_in_either_header_and_the_scheme_in_any_case():
    assert keys((b"authorization", b"bEARER k")) == [b"k"]
    assert keys((b"x-api-key", b"k")) == [b"k"]
    assert keys((b"authorization", b"Basic k")) == []


def test_keys_are_compared_as_bytes():
    check = KeyCheck(None, ["schlüssel", "two"])
    assert check._matching(["schlüssel".encode()]) == "schlüssel".encode()
    assert check._matching([b"schl\xfcssel", b"tw", b"twoo", b""]) is None
