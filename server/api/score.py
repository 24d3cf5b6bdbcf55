"""POST /score: how likely each of many continuations is, after one prompt or several."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from server.api.boundary import Continued, Encoder, continue_prompt
from server.api.encode import finite
from server.api.prompts import check_bytes, check_ids
from server.api.schemas.fields import TextOrIds
from server.api.schemas.native import ScoreBody
from server.api.service import ServedModel, Service
from server.api.tokens import Json, computed, usage
from server.api.trie import Ids, Trie, build_trie
from server.api.waves import Call, run_waves
from server.errors import BadRequest
from server.settings import Settings


@dataclass(frozen=True, slots=True)
class Scored:
    """A prompt with its continuations, and the trie that holds their scores."""

    tokens: Continued
    trie: Trie

    @property
    def num_tokens(self) -> int:
        return sum(map(len, self.tokens.continuations))


async def prepare(
    body: ScoreBody, service: Service, model: ServedModel
) -> tuple[list[Scored], Scored | None]:
    """Each prompt, and the baseline."""
    check_counts(body, service.settings)
    for i, each in enumerate(body.continuations):
        param = f"continuations.{i}"
        if isinstance(each, str):
            check_bytes(each, model, param)
        else:
            check_ids(each, model.vocab_size, param)
    encoder = Encoder(model.tokenizer, body.add_special_tokens, body.parse_special)

    async def tokenise(prompt: TextOrIds, param: str) -> Scored:
        found = await continue_prompt(service, model, prompt, body.continuations, encoder, param)
        return Scored(found, build_trie(found.context, found.continuations))

    is_one = len(body.prompt) == 1
    scored = [
        await tokenise(prompt, "prompt" if is_one else f"prompt.{i}")
        for i, prompt in enumerate(body.prompt)
    ]
    baseline = None if body.baseline is None else await tokenise(body.baseline, "baseline")
    check_tokens(scored, baseline, service.settings)
    check_measure(body, [*scored, *([baseline] if baseline else [])], model)
    return scored, baseline


def check_counts(body: ScoreBody, limits: Settings) -> None:
    if len(body.prompt) > limits.max_prompts:
        raise BadRequest(
            f"prompt has {len(body.prompt)} prompts; at most {limits.max_prompts} are allowed",
            "prompt",
        )
    refuse_beyond(len(body.prompt) * len(body.continuations), limits)


def check_tokens(scored: Sequence[Scored], baseline: Scored | None, limits: Settings) -> None:
    everything = (*scored, baseline)
    refuse_beyond(sum(each.num_tokens for each in everything if each is not None), limits)


def refuse_beyond(num_tokens: int, limits: Settings) -> None:
    if num_tokens > limits.max_reports:
        raise BadRequest(
            f"prompts x tokens of the continuations are {num_tokens} log-probabilities; at most "
            f"{limits.max_reports} are allowed in one call",
            "continuations",
        )


def check_measure(body: ScoreBody, scored: Sequence[Scored], model: ServedModel) -> None:
    for each in scored if body.normalize == "bytes" else ():
        for i, ids in enumerate(each.tokens.continuations):
            if not num_bytes(ids, model):
                raise BadRequest(
                    f"continuations.{i} is 0 bytes of text, so that normalize cannot be bytes",
                    f"continuations.{i}",
                )


async def run(
    scored: Sequence[Scored], baseline: Scored | None, model: ServedModel, call: Call
) -> None:
    tries = [each.trie for each in (*scored, baseline) if each is not None]
    await run_waves(model.engine, call, [trie.root() for trie in tries])


def answer(
    body: ScoreBody,
    scored: Sequence[Scored],
    baseline: Scored | None,
    model: ServedModel,
    call_id: str,
) -> Json:
    everything = [each for each in (*scored, baseline) if each is not None]
    num_cached = sum(each.trie.cached_tokens for each in everything)
    num_prompt = sum(len(each.tokens.context) for each in everything)
    num_scored = sum(each.num_tokens for each in everything)
    return {
        "id": call_id,
        "object": "score",
        "model": model.name,
        "results": [result(i, each, baseline, body, model) for i, each in enumerate(scored)],
        "usage": usage(num_prompt, num_scored, num_cached),
        "computed": computed(model, "raw", num_cached),
    }


def result(
    index: int, scored: Scored, baseline: Scored | None, body: ScoreBody, model: ServedModel
) -> Json:
    found = [
        continuation(i, text, scored, baseline, body, model)
        for i, text in enumerate(body.continuations)
    ]
    scores = [each["score"] for each in found]
    for each, probability in zip(found, softmax(scores), strict=True):
        each["probability"] = probability
    return {
        "index": index,
        "context_token_ids": list(scored.tokens.context),
        "continuations": found,
        "label_mass": math.fsum(math.exp(each["logprob"]) for each in found),
        "best": scores.index(max(scores)),
    }


def continuation(
    index: int,
    text: TextOrIds,
    scored: Scored,
    baseline: Scored | None,
    body: ScoreBody,
    model: ServedModel,
) -> Json:
    ids = scored.tokens.continuations[index]
    found = scored.trie.scores[ids]
    logprobs = [finite(score.logprob) for score in found]
    size = num_bytes(ids, model)
    told: Json = {
        "index": index,
        "text": text if isinstance(text, str) else spell(ids, model),
        "token_ids": list(ids),
        "token_logprobs": logprobs,
        "logprob": math.fsum(logprobs),
        "mean_logprob": math.fsum(logprobs) / len(ids),
        "logprob_per_byte": math.fsum(logprobs) / size if size else None,
        "is_greedy": all(score.rank == 1 for score in found),
    }
    told["score"] = told[MEASURES[body.normalize]]
    if baseline is not None:
        told["baseline_logprob"], other = measure(index, baseline, body.normalize, model)
        told["score"] -= other
    return told


MEASURES = {"sum": "logprob", "mean": "mean_logprob", "bytes": "logprob_per_byte"}


def measure(index: int, scored: Scored, normalize: str, model: ServedModel) -> tuple[float, float]:
    """The sum of a continuation's log-probabilities, and what is subtracted of a score."""
    ids = scored.tokens.continuations[index]
    total = math.fsum(finite(score.logprob) for score in scored.trie.scores[ids])
    sizes = {"sum": 1, "mean": len(ids), "bytes": num_bytes(ids, model)}
    return total, total / sizes[normalize]


def num_bytes(ids: Ids, model: ServedModel) -> int:
    return sum(len(model.tokenizer.token_bytes(token)) for token in ids)


def spell(ids: Ids, model: ServedModel) -> str:
    return b"".join(map(model.tokenizer.token_bytes, ids)).decode("utf-8", "replace")


def softmax(scores: Sequence[float]) -> list[float]:
    high = max(scores)
    shares = [math.exp(score - high) for score in scores]
    total = math.fsum(shares)
    return [share / total for share in shares]
