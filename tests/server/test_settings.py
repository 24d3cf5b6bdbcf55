import os
from importlib.metadata import version

import pytest

from server.flags import UsageError, build_parser, read_settings
from server.settings import LIMITS, Settings

API_MD_FLAGS = [
    *("model", "host", "port", "model-name", "precision", "threads", "max-batch"),
    *("max-batch-tokens", "max-queue", "max-context", "kv-cache-memory", "kv-cache-tokens"),
    *("prefix-cache", "max-logprobs", "max-n", "max-prompts", "max-body-bytes"),
    *(
        "max-header-bytes",
        "max-connections",
        "read-timeout",
        "keep-alive-timeout",
        "request-timeout",
        "drain-timeout",
        "api-key",
    ),
    *("allowed-host", "cors-origin", "log-level"),
]


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    for name in os.environ:
        if name.startswith("TIEDLM_"):
            monkeypatch.delenv(name)


def settings(*flags):
    given = vars(build_parser().parse_args(["serve", *flags]))
    given.pop("command")
    return read_settings(given)


def refusal(*flags):
    with pytest.raises(UsageError) as refused:
        settings(*flags)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("flag", API_MD_FLAGS)
def test_every_flag_is_a_field_and_a_variable(flag, monkeypatch):
    field = flag.replace("-", "_")
    assert field in Settings.model_fields
    monkeypatch.setenv("TIEDLM_" + field.upper(), "\x01")
    if field not in ("model", "model_name", "host", "allowed_host", "cors_origin"):
        assert "TIEDLM_" in refusal()


def test_a_flag_wins_over_a_variable_and_a_variable_over_the_default(monkeypatch):
    assert settings().port == 8000
    monkeypatch.setenv("TIEDLM_PORT", "1234")
    assert settings().port == 1234
    assert settings("--port", "99").port == 99


def test_connections_idle_longer_than_clients_keep_them():
    """nginx 60 s, Go 90 s, Caddy 120 s, OkHttp 300 s: so the client closes, and loses nothing."""
    assert settings().keep_alive_timeout > 300


def test_the_default_model_is_served_unless_another_is_named():
    assert settings().model == "smollm2-135m-instruct"
    assert settings("other").model == settings("--model", "other").model == "other"
    assert "give one" in refusal("one", "--model", "two")


def test_sizes_have_units():
    assert settings("--kv-cache-memory", "2GiB").kv_cache_memory == 2**31
    assert settings("--kv-cache-memory", "500M").kv_cache_memory == 500_000_000
    assert settings("--max-body-bytes", "4096").max_body_bytes == 4096
    assert settings("--kv-cache-memory", "1 tib").kv_cache_memory == 2**40
    assert "MiB" in refusal("--kv-cache-memory", "2 gallons")


def test_lists_are_repeated_flags_or_variables_with_commas(monkeypatch):
    assert settings("--api-key", "a", "--api-key", "b").api_key == ("a", "b")
    monkeypatch.setenv("TIEDLM_API_KEYS", "c, d")
    monkeypatch.setenv("TIEDLM_ALLOWED_HOST", "x.example,y.example")
    assert settings().api_key == ("c", "d")
    assert settings().allowed_host == ("x.example", "y.example")


def test_hosts_and_origins_that_a_client_may_send_can_be_listed():
    hosts = ("*", "a.example", "A.example:8000", "10.0.0.1", "[::1]:80", "fd00::1", "my_host")
    origins = ("*", "null", "http://localhost:3000", "https://[::1]:8443", "chrome-extension://abc")
    flags = [part for host in hosts for part in ("--allowed-host", host)]
    flags += [part for origin in origins for part in ("--cors-origin", origin)]
    assert (settings(*flags).allowed_host, settings(*flags).cors_origin) == (hosts, origins)


def test_keys_are_never_shown(monkeypatch):
    monkeypatch.setenv("TIEDLM_API_KEYS", "secret")
    assert "secret" not in repr(settings())
    assert "sec\x7fret" not in refusal("--api-key", "sec\x7fret")


@pytest.mark.parametrize("keys", [",", " , ,", " "])
def test_a_variable_without_a_key_in_it_does_not_leave_the_server_open(keys, monkeypatch):
    """`TIEDLM_API_KEYS=$FIRST,$SECOND` of a deployment whose secrets are missing served anybody."""
    monkeypatch.setenv("TIEDLM_API_KEYS", keys)
    assert "TIEDLM_API_KEYS" in refusal()


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--port", "x"], "--port"),
        (["--port", "65536"], "65535"),
        (["--max-batch", "0"], "--max-batch"),
        (["--precision", "int3"], "'int3'"),
        (["--prefix-cache", "maybe"], "--prefix-cache"),
        (["--read-timeout", "inf"], "--read-timeout"),
        (["--read-timeout", "0"], "--read-timeout"),
        (["--keep-alive-timeout", "0"], "--keep-alive-timeout"),
        (["--api-key", ""], "--api-key"),
        (["--bogus"], "--bogus"),
        (["--max-b", "3"], "--max-b"),
        (["a", "b"], "b"),
        (["--kv-cache-memory", "1GiB", "--kv-cache-tokens", "5"], "not both"),
        (["--log-level", "loud"], "--log-level"),
        (["--cors-origin", "https://a.example/"], "without a path, not 'https://a.example/'"),
        (["--cors-origin", "https://A.example"], "--cors-origin"),
        (["--cors-origin", "*", "--cors-origin", "a.example"], "--cors-origin"),
        (["--allowed-host", "https://a.example"], "--allowed-host"),
        (["--allowed-host", "a.example/"], "--allowed-host"),
    ],
)
def test_what_is_wrong_is_told_in_one_line_by_its_name(flags, told):
    assert told in refusal(*flags)


def test_a_bad_variable_is_told_by_its_own_name(monkeypatch):
    monkeypatch.setenv("TIEDLM_MAX_N", "-3")
    assert "TIEDLM_MAX_N" in refusal()
    assert "-3" in refusal()


@pytest.mark.parametrize("argv", [[], ["bogus"], ["pull"], ["generate"], ["inspect"]])
def test_a_command_that_means_nothing_is_refused(argv):
    with pytest.raises(UsageError):
        build_parser().parse_args(argv)


def test_generate_takes_a_model_and_a_prompt_or_a_prompt_alone():
    alone = build_parser().parse_args(["generate", "Hello"])
    assert (alone.model, alone.prompt) == ("smollm2-135m-instruct", "Hello")
    both = build_parser().parse_args(["generate", "model.gguf", "Hello"])
    assert (both.model, both.prompt) == ("model.gguf", "Hello")


def test_every_limit_is_a_field():
    assert set(LIMITS) <= set(Settings.model_fields)


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit) as ended:
        build_parser().parse_args(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"tiedlm {version('tiedlm')}\n"
