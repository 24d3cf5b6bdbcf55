"""
POST /next-token-probabilities: one distribution a prompt, by the same path as generating one token.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from model.step import Ask, Report, Sampling, Score
from server.api.encode import MINUS_INFINITY
from server.api.prompts import check_ids
from server.api.schemas.native import ProbabilitiesBody
from server.api.service import ServedModel, Service
from server.api.tokens import Json, computed, token_probability, usage
from server.api.waves import run_wave
from server.engine.request import Ending, Request
from server.errors import BadRequest
from server.settings import Settings

Ids = tuple[int, ...]


async def single_tokens(body: ProbabilitiesBody, service: Service, model: ServedModel) -> Ids:
    """`texts` as ids: each must be exactly one token."""
    found = []
    for i, text in enumerate(body.texts):
        ids = await service.tokenize(model.tokenizer.encode, text, False, body.parse_special)
        if len(ids) != 1:
            split = ", ".join(f"{token} {model.tokenizer.token_text(token)!r}" for token in ids[:8])
            raise BadRequest(
                f"texts.{i} is {len(ids)} tokens ({split}); each text must be exactly one",
                f"texts.{i}",
            )
        found.append(ids[0])
    return tuple(found)


def check_sizes(
    body: ProbabilitiesBody, num_prompts: int, is_full: bool, model: ServedModel, limits: Settings
) -> None:
    """One whole vocabulary is always allowed, several up to the limits of one answer."""
    V = model.vocab_size
    check_ids(body.ids, V, "ids")
    if body.top_k > V:
        raise BadRequest(f"top_k is {body.top_k}; the vocabulary has {V} tokens", "top_k")
    asked = num_prompts * (body.top_k + len(body.ids) + len(body.texts))
    if asked > (most := max(limits.max_reports, 2 * V)):
        raise BadRequest(
            f"{num_prompts} prompts x (top_k + ids + texts) are {asked} log-probabilities; at most "
            f"{most} are allowed in one call",
            "top_k",
        )
    if is_full and num_prompts * V > (most := max(limits.max_distribution_values, V)):
        raise BadRequest(
            f"{num_prompts} prompts x {V} tokens are {num_prompts * V} values; at most {most} are "
            "allowed in one call",
            "full",
        )


def ask_of(body: ProbabilitiesBody, ids: Ids, is_full: bool) -> tuple[Ask, Sampling]:
    """At temperature 1 the model's own distribution, bit for bit as every other route has it."""
    is_processed = body.temperature != 1.0
    ask = Ask(body.top_k, ids, is_processed=is_processed, summary=True, full=is_full)
    return ask, Sampling(temperature=body.temperature if is_processed else 0.0)


async def run(
    prompts: Sequence[Ids],
    ask: Ask,
    sampling: Sampling,
    model: ServedModel,
    call_id: str,
    cache_salt: str,
    timeout: float,
) -> tuple[list[Report], list[Ending]]:
    """Where a temperature is to be applied, a token is drawn with it, and forgotten."""
    max_tokens = 1 if ask.is_processed else 0
    requests = [
        Request(
            f"{call_id}-{i}",
            prompt,
            max_tokens,
            sampling,
            ask,
            cache_salt=cache_salt,
            timeout=timeout,
        )
        for i, prompt in enumerate(prompts)
    ]
    outcomes = await run_wave(model.engine, requests)
    reports = [each.report for each in outcomes if each.report is not None]
    endings = [each.ending for each in outcomes if each.ending is not None]
    assert len(reports) == len(endings) == len(prompts)
    return reports, endings


def answer(
    body: ProbabilitiesBody,
    prompts: Sequence[Ids],
    reports: Sequence[Report],
    endings: Sequence[Ending],
    model: ServedModel,
    call_id: str,
) -> Json:
    num_cached = sum(ending.cached_tokens for ending in endings)
    mode = "raw" if body.temperature == 1.0 else "processed"
    return {
        "id": call_id,
        "object": "next_token_probabilities",
        "model": model.name,
        "results": [
            result(i, len(prompts[i]), report, body.full, model) for i, report in enumerate(reports)
        ],
        "usage": usage(sum(map(len, prompts)), 0, num_cached),
        "computed": computed(model, mode, num_cached),
    }


def result(
    index: int, num_prompt: int, report: Report, full: str | bool, model: ServedModel
) -> Json:
    found: Json = {
        "index": index,
        "prompt_tokens": num_prompt,
        "top": [token_probability(model.tokenizer, score) for score in report.top],
        "selected": [token_probability(model.tokenizer, score) for score in report.ids],
        "entropy": report.entropy,
        "logsumexp": report.logsumexp,
        "top_mass": mass(report.top),
    }
    if report.full is not None and full is not False:
        found["distribution"] = distribution(report.full, full)
    return found


def mass(scores: Iterable[Score]) -> float:
    return math.fsum(math.exp(score.logprob) for score in scores)


def distribution(full: bytes, form: str | bool) -> list[float] | Json:
    values = finite_values(full)
    if form == "json":
        numbers: list[float] = values.tolist()
        return numbers
    return {
        "dtype": "float32",
        "encoding": "base64",
        "shape": [len(values)],
        "data": base64.b64encode(values.data).decode("ascii"),
    }


def finite_values(full: bytes) -> NDArray[np.float32]:
    """(V,) float32 log-probabilities, with the number that stands for minus infinity."""
    values = np.frombuffer(full, "<f4")
    is_impossible = np.isneginf(values)
    if not is_impossible.any():
        return values
    return np.where(is_impossible, np.float32(MINUS_INFINITY), values)


def npy_parts(reports: Sequence[Report]) -> list[bytes | memoryview]:
    """The parts of a float32 .npy of shape (prompts, V): the model's own buffers, not copied."""
    rows = [finite_values(report.full) for report in reports if report.full is not None]
    head = io.BytesIO()
    shape = (len(rows), len(rows[0]))
    npy.write_array_header_1_0(head, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return [head.getvalue(), *(row.data.cast("B") for row in rows)]
