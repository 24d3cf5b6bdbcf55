"""What both OpenAI routes share: which model is meant, how use is told, what was ignored."""

from __future__ import annotations

import time
from collections.abc import Sequence
from urllib.parse import quote

from server.api.generation import Generation
from server.api.schemas.openai import OpenAiBody
from server.api.service import ServedModel
from server.api.tokens import Json
from server.errors import BadRequest, ModelNotFound
from server.settings import Settings

IGNORED = "x-ignored-fields"
MAX_IGNORED = 32  # names told of
MAX_NAME = 64  # characters of each


def check_model(asked: str | None, model: ServedModel) -> None:
    """A client that names another model is not to take this one for it."""
    if asked is not None and asked != model.name:
        raise ModelNotFound(
            f"the model {asked[:200]!r} does not exist here; {model.name!r} is served", "model"
        )


def check_alternatives(name: str, asked: int | None, settings: Settings, vocab_size: int) -> None:
    most = vocab_size if settings.max_logprobs == -1 else settings.max_logprobs
    if asked is not None and asked > most:
        raise BadRequest(f"{name} is {asked}; at most {most} is allowed", name)


def head(call_id: str, kind: str, model: ServedModel) -> Json:
    return {
        "id": call_id,
        "object": kind,
        "created": int(time.time()),
        "model": model.name,
        "system_fingerprint": f"fp_{model.sha256[:12]}",
    }


def usage(run: Generation) -> Json:
    return {
        "prompt_tokens": run.num_prompt_tokens,
        "completion_tokens": run.num_drawn,
        "total_tokens": run.num_prompt_tokens + run.num_drawn,
        "prompt_tokens_details": {"cached_tokens": run.num_cached},
    }


def ignored_header(body: OpenAiBody, more: Sequence[str] = ()) -> dict[str, str]:
    """
    Names come from the client: whatever a header cannot hold is percent-encoded. One without a
    character is two quotes, since a header's value must not end in the space before it.
    """
    ignored = (*body.ignored(), *more)
    names = [quote(name[:MAX_NAME], safe="._-[]") or '""' for name in ignored]
    return {IGNORED: ", ".join(names[:MAX_IGNORED])} if names else {}
