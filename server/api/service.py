"""What the routes share: the settings, the metrics, and the model once it is there."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Annotated, ParamSpec, TypeVar

from fastapi import Depends, Request

from server.constrain.masks import Grammars
from server.engine.engine import Engine
from server.errors import Loading, ShuttingDown
from server.metrics import Metrics
from server.settings import LIMITS, Settings
from server.text.chat import ChatTemplate
from server.text.tokenizer import TextTokenizer

SHORT = 256  # characters that are tokenised on the event loop: some tens of microseconds
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SpecialIds:
    """None where the model has no such token."""

    bos: int | None
    eos: int | None
    pad: int | None
    unk: int | None
    stops: tuple[int, ...]  # every id that ends a generation
    adds_bos: bool


@dataclass(frozen=True, slots=True)
class ServedModel:
    name: str
    family: str
    num_parameters: int
    vocab_size: int
    context_length: int  # the smallest of the model's, --max-context and the KV cache
    precision: str
    kernels: str  # the native ones' instruction set, or "torch"
    sha256: str
    parameter_bytes: int  # as held in memory, the tied matrix once
    embedding_bytes: int
    shares_storage: bool
    kv_cache_tokens: int
    kv_cache_memory: int  # bytes
    special: SpecialIds
    chat_template: str | None
    chat: ChatTemplate | None  # None where there is no template, or one that cannot be compiled
    tokenizer: TextTokenizer
    grammars: Grammars
    engine: Engine


@dataclass(slots=True)
class Service:
    settings: Settings
    metrics: Metrics
    model: ServedModel | None = None  # None: still loading
    is_draining: bool = False
    created: int = field(default_factory=lambda: int(time.time()))
    # One thread: tokenising is bounded in bytes, not in time, and must not take more than one core.
    tokenizing: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, "tokenize")
    )
    templating: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, "template")
    )

    def require_model(self) -> ServedModel:
        if self.is_draining:
            raise ShuttingDown("the server is shutting down; it takes no new work")
        if self.model is None:
            raise Loading("the model is still being loaded")
        return self.model

    def begin_drain(self) -> None:
        self.is_draining = True
        if self.model is not None:
            self.model.engine.begin_drain()

    async def render(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs `work` in the thread of the chat template, which may take its time."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.templating, lambda: work(*args, **kwargs))

    async def encode(
        self, model: ServedModel, text: str, add_special_tokens: bool, parse_special: bool
    ) -> tuple[int, ...]:
        """A short text at once: handing it to the tokenising thread takes longer than the work."""
        tokenizer, how = model.tokenizer, (add_special_tokens, parse_special)
        ids = tokenizer.encode_if_idle(text, *how) if len(text) <= SHORT else None
        return tuple(await self.tokenize(tokenizer.encode, text, *how) if ids is None else ids)

    async def tokenize(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs `work` in the tokenising thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.tokenizing, lambda: work(*args, **kwargs))

    def limits(self, model: ServedModel) -> dict[str, object]:
        """Every limit with its value; what a flag left open, as it was settled for this model."""
        limits = {name: getattr(self.settings, name) for name in LIMITS}
        settled = ("kv_cache_tokens", "kv_cache_memory")
        return (
            limits
            | {name: getattr(model, name) for name in settled}
            | {"max_context": model.context_length}
        )


async def current_service(request: Request) -> Service:
    service = request.app.state.service
    assert isinstance(service, Service)
    return service


async def current_model(request: Request) -> ServedModel:
    return (await current_service(request)).require_model()


CurrentService = Annotated[Service, Depends(current_service)]
CurrentModel = Annotated[ServedModel, Depends(current_model)]


def cache_salt(request: Request, mode: str, call_id: str) -> str:
    """Requests of one salt share computed prefixes; a key itself is not kept in the cache."""
    if mode == "shared":
        return ""
    if mode == "off":
        return call_id
    key: bytes = getattr(request.state, "api_key", b"")
    return hashlib.blake2b(key, digest_size=16).hexdigest() if key else ""
