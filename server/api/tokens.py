"""
Tokens as answers show them: a token is always `id`, `text`, its exact `bytes` and a `logprob`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from model.step import Score
from server.api.encode import finite
from server.api.service import ServedModel
from server.engine.request import Ending
from server.text.tokenizer import TextTokenizer

Json = dict[str, Any]


def token(tokenizer: TextTokenizer, token_id: int, logprob: float | None) -> Json:
    own = tokenizer.token_bytes(token_id)
    return {
        "id": token_id,
        "text": own.decode("utf-8", "replace"),
        "bytes": list(own),
        "logprob": None if logprob is None else finite(logprob),
    }


def alternative(tokenizer: TextTokenizer, score: Score) -> Json:
    return token(tokenizer, score.token, score.logprob) | {"rank": score.rank}


def alternatives(tokenizer: TextTokenizer, scores: Iterable[Score]) -> list[Json]:
    return [alternative(tokenizer, score) for score in scores]


def token_probability(tokenizer: TextTokenizer, score: Score) -> Json:
    own = {"probability": math.exp(score.logprob), "logit": score.logit}
    return alternative(tokenizer, score) | own


def usage(num_prompt: int, num_completion: int, num_cached: int) -> Json:
    return {
        "prompt_tokens": num_prompt,
        "completion_tokens": num_completion,
        "total_tokens": num_prompt + num_completion,
        "cached_tokens": num_cached,
    }


def timings(endings: Sequence[Ending], num_tokens: int) -> Json:
    """
    The longest of each phase over the call's sequences; the rate is of tokens after each first one.
    """
    decode = max(ending.timings.decode for ending in endings)
    after_first = num_tokens - len(endings)
    return {
        "queue_ms": 1000 * max(ending.timings.queue for ending in endings),
        "prefill_ms": 1000 * max(ending.timings.prefill for ending in endings),
        "decode_ms": 1000 * decode,
        "tokens_per_second": after_first / decode if decode > 0 and after_first > 0 else 0.0,
    }


def computed(model: ServedModel, logprobs_mode: str, num_cached: int) -> Json:
    """What the numbers of a native answer were computed from, and how."""
    return {
        "precision": model.precision,
        "logits_dtype": "float32",
        "logprobs_mode": logprobs_mode,
        "cached_tokens": num_cached,
        "model_sha256": model.sha256,
        # torch's products depend on how many rows share them.
        "deterministic": model.kernels != "torch",
    }
