"""
One frozen object, built once at the start: every field is a flag, `--max-batch`, and an environment
variable, `TIEDLM_MAX_BATCH`; the flag wins. It knows no model: what depends on one is settled after
loading.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from server.machine import usable_cores

ENV_PREFIX = "TIEDLM_"
DEFAULT_MODEL = "smollm2-135m-instruct"
UNITS = {"": 1} | {
    prefix + suffix: base**power
    for suffix, base in (("", 1000), ("i", 1024))
    for power, prefix in enumerate("kmgt", 1)
}
HOST = re.compile(r"\*|(?:\[[0-9a-f:.]+\]|[0-9a-f:]+|[a-z0-9._-]+)(?::\d{1,5})?", re.IGNORECASE)
ORIGIN = re.compile(r"\*|null|[a-z][a-z0-9+.-]*://[^\sA-Z/?#@]+")
SIZE = re.compile(r"(\d{1,15})\s*([kmgt]i?)?b?", re.IGNORECASE)


def parse_size(value: object) -> object:
    """ "512MiB", "2G" or plain bytes."""
    if not isinstance(value, str):
        return value
    if (size := SIZE.fullmatch(value.strip())) is None:
        raise ValueError("a size is bytes, or a whole number of K, M, G, T, KiB, MiB, GiB or TiB")
    return int(size[1]) * UNITS[(size[2] or "").lower()]


def split_list(value: object) -> object:
    """An environment variable holds a list with commas between."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def split_keys(value: object) -> object:
    """Commas alone hold no key, yet who sets them wants one: not a server open to everybody."""
    keys = split_list(value)
    if isinstance(value, str) and not keys:
        raise ValueError("there is no key in it")
    return keys


def check_key(key: str) -> str:
    if not key.strip() or any(ord(c) < 0x20 or ord(c) == 0x7F for c in key):
        raise ValueError("an API key must not be empty nor hold control characters")
    return key


def check_host(name: str) -> str:
    if not HOST.fullmatch(name):
        raise ValueError("a host is a name or an address, and its port at most: my.host:8000")
    return name


def check_origin(origin: str) -> str:
    """As browsers send it; anything else would be listed and never match."""
    if not ORIGIN.fullmatch(origin):
        raise ValueError("an origin is scheme://host:port, in lower case and without a path")
    return origin


Size = Annotated[int, BeforeValidator(parse_size)]
Seconds = Annotated[float, Field(gt=0, le=86400, allow_inf_nan=False)]
Hosts = Annotated[
    tuple[Annotated[str, AfterValidator(check_host)], ...], NoDecode, BeforeValidator(split_list)
]
Origins = Annotated[
    tuple[Annotated[str, AfterValidator(check_origin)], ...], NoDecode, BeforeValidator(split_list)
]
Keys = Annotated[
    tuple[Annotated[str, AfterValidator(check_key)], ...], NoDecode, BeforeValidator(split_keys)
]


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_ignore_empty=True,
        frozen=True,
        extra="forbid",
        protected_namespaces=(),
    )

    model: str = Field(DEFAULT_MODEL, description="catalogue name, folder, .gguf file or hub id")
    model_name: str | None = Field(
        None, min_length=1, max_length=256, description="what answers call the model"
    )
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    precision: Literal["auto", "float32", "bfloat16", "int8", "int4"] = Field(
        "auto", description="how weights are held; auto: as stored"
    )
    mlp_input_bits: Literal["16", "8"] = Field(
        "16", description="bits that inputs of an MLP's packed matrices are rounded to"
    )
    threads: int = Field(
        default_factory=usable_cores, ge=1, le=1024, description="threads of the model's arithmetic"
    )
    max_batch: int = Field(32, ge=1, le=4096, description="rows a step")
    max_batch_tokens: int = Field(512, ge=1, le=2**20, description="tokens a step")
    max_queue: int = Field(256, ge=1, le=2**16, description="sequences waiting; then 429")
    max_context: int | None = Field(
        None, ge=1, le=2**24, description="tokens a sequence; at most, and by default, the model's"
    )
    kv_cache_memory: Size | None = Field(
        None,
        ge=1,
        le=2**50,
        description="bytes for the KV cache (2GiB, 500M, ...); by default what --max-batch whole "
        "contexts need, at most a quarter of the available memory",
    )
    kv_cache_tokens: int | None = Field(
        None, ge=1, le=2**32, description="the same in tokens; give one of the two"
    )
    prefix_cache: Literal["per-key", "shared", "off"] = Field(
        "per-key", description="whose prompts may share computed prefixes"
    )
    speculation: Literal["auto", "off"] = Field(
        "auto", description="guess tokens that the text repeats, where it pays; no answer changes"
    )
    max_logprobs: int = Field(
        20, ge=-1, le=2**24, description="alternatives a token; -1 is the whole vocabulary"
    )
    max_reports: int = Field(
        2**18,
        ge=1,
        le=2**32,
        description="log-probabilities in one answer: tokens x (alternatives + 1)",
    )
    max_distribution_values: int = Field(
        2**22,
        ge=1,
        le=2**32,
        description="prompts x vocabulary in one answer of full distributions",
    )
    max_n: int = Field(64, ge=1, le=4096, description="choices a prompt")
    max_prompts: int = Field(128, ge=1, le=2**16, description="prompts a call")
    max_body_bytes: Size = Field(4 * 2**20, ge=1024, le=2**30, description="bytes of a body")
    max_header_bytes: Size = Field(
        16384, ge=1024, le=2**20, description="bytes of a request's line and headers"
    )
    max_connections: int = Field(
        1024, ge=1, le=2**16, description="open connections; then those that ask nothing are closed"
    )
    read_timeout: Seconds = Field(
        30, description="seconds for a request to arrive, and for a stalled reader to read on"
    )
    keep_alive_timeout: int = Field(
        310, ge=1, le=86400, description="whole seconds that a connection may idle between requests"
    )
    request_timeout: Seconds = Field(600, description="seconds for a request to be answered")
    drain_timeout: Annotated[float, Field(ge=0, le=86400, allow_inf_nan=False)] = Field(
        30, description="seconds that work in flight may take after SIGTERM"
    )
    api_key: Keys = Field(
        (),
        repr=False,
        validation_alias=AliasChoices("api_key", "TIEDLM_API_KEYS", "TIEDLM_API_KEY"),
        description="a key that clients must send; repeatable; TIEDLM_API_KEYS holds several, "
        "with commas between",
    )
    allowed_host: Hosts = Field(
        (), description="a Host header to accept beside loopback and bound addresses; repeatable"
    )
    cors_origin: Origins = Field(
        (), description="an origin whose pages may call this server; repeatable"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="what is logged to stdout"
    )

    @model_validator(mode="after")
    def check_kv_cache(self) -> Settings:
        if self.kv_cache_memory is not None and self.kv_cache_tokens is not None:
            raise ValueError("give one of --kv-cache-memory and --kv-cache-tokens, not both")
        return self


LIMITS = (
    "threads",
    "max_batch",
    "max_batch_tokens",
    "max_queue",
    "max_context",
    "kv_cache_memory",
    "kv_cache_tokens",
    "prefix_cache",
    "speculation",
    "max_logprobs",
    "max_reports",
    "max_distribution_values",
    "max_n",
    "max_prompts",
    "max_body_bytes",
    "max_header_bytes",
    "max_connections",
    "read_timeout",
    "keep_alive_timeout",
    "request_timeout",
    "drain_timeout",
)
