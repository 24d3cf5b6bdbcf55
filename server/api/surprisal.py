"""POST /surprisal: how unexpected each token and word of a text is, and the text as a whole."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from model.step import Ask
from server.api.encode import finite
from server.api.prompts import first_id
from server.api.schemas.native import SurprisalBody
from server.api.service import ServedModel, Service
from server.api.tokens import Json, computed, usage
from server.api.waves import Call, Outcome, run_waves
from server.api.words import Told, Word, find_words, sum_nats, word_nats
from server.engine.request import Request
from server.errors import BadRequest
from server.settings import Settings
from server.text.tokenizer import Piece

LOG_2 = math.log(2)


@dataclass(slots=True)
class Text:
    """One text being scored."""

    text: str
    bos: tuple[int, ...]  # one token or none
    pieces: Sequence[Piece]
    tokens: tuple[int, ...]  # of bos and pieces
    members: bytes | None  # of the mask whose mass the words need
    told: list[Told] = field(default_factory=list)
    mass_at_end: float | None = None
    num_cached: int = 0


@dataclass(frozen=True, slots=True)
class Window:
    """Tokens [begin, end) of a text, of which those from `first` on are scored."""

    text: Text
    begin: int
    first: int
    end: int

    def request(self, request_id: str, call: Call) -> Request:
        return Request(
            request_id,
            prompt=self.text.tokens[self.begin : self.end],
            max_tokens=0,
            ask=None if self.text.members is None else Ask(members=self.text.members),
            prompt_ask=Ask(summary=True, members=self.text.members),
            first_scored=self.first - self.begin,
            cache_salt=call.cache_salt,
            timeout=call.left(),
        )

    def take(self, outcome: Outcome) -> Sequence[Window]:
        text = self.text
        for i, (score, report) in enumerate(zip(outcome.scored, outcome.reports, strict=True)):
            place = self.first + i - len(text.bos)
            piece = text.pieces[place]
            text.told[place] = Told(piece, score, report.entropy, report.mass)
        if self.end == len(text.tokens) and outcome.report is not None:
            text.mass_at_end = outcome.report.mass
        if self.begin == 0 and outcome.ending is not None:
            text.num_cached = outcome.ending.cached_tokens
        return ()


def windows(num_tokens: int, window: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """
    (begin, first scored, end) of each, as transformers' guide to perplexity has them: each begins
    `stride` tokens after the one before, and scores what that one did not. Nothing comes before a
    window's own first token, so that it is never scored by it.

    >>> list(windows(10, 6, 3))
    [(0, 1, 6), (3, 6, 9), (6, 9, 10)]
    """
    scored = 0
    for begin in range(0, num_tokens, stride):
        end = min(begin + window, num_tokens)
        yield begin, max(scored, begin + 1), end
        scored = end
        if end == num_tokens:
            return


async def prepare(body: SurprisalBody, service: Service, model: ServedModel) -> list[Text]:
    settings = service.settings
    check_counts(body, settings, model)
    bos = bos_of(body, model)
    members = None
    if body.by == "word":
        members = await service.tokenize(lambda: model.tokenizer.word_ends)
    texts = []
    for text in body.text:
        pieces = await service.tokenize(model.tokenizer.pieces, text, False, body.parse_special)
        tokens = (*bos, *(piece.token for piece in pieces))
        texts.append(Text(text, bos, pieces, tokens, members, [Told(piece) for piece in pieces]))
    num_tokens = sum(len(text.pieces) for text in texts)
    if num_tokens > settings.max_reports:
        raise BadRequest(
            f"text is {num_tokens} tokens; at most {settings.max_reports} are scored in one call",
            "text",
        )
    return texts


def check_counts(body: SurprisalBody, limits: Settings, model: ServedModel) -> None:
    if len(body.text) > limits.max_prompts:
        raise BadRequest(
            f"text has {len(body.text)} texts; at most {limits.max_prompts} are allowed", "text"
        )
    most = limits.max_reports * model.tokenizer.max_token_bytes
    size = sum(len(text.encode()) for text in body.text)
    if size > most:
        raise BadRequest(f"text is {size} bytes; at most {most} can be scored in one call", "text")
    window, _ = window_of(body, model)
    if window > model.context_length:
        raise BadRequest(
            f"window is {window}; the context is {model.context_length} tokens", "window"
        )
    if body.stride is not None and body.stride > window:
        raise BadRequest(
            f"stride is {body.stride}; at most the window, {window}, is allowed", "stride"
        )


def window_of(body: SurprisalBody, model: ServedModel) -> tuple[int, int]:
    """(window, stride): the whole context, in steps of half a window."""
    window = body.window or model.context_length
    return window, body.stride or max(1, window // 2)


def bos_of(body: SurprisalBody, model: ServedModel) -> tuple[int, ...]:
    if body.bos is False or (body.bos is None and not model.special.adds_bos):
        return ()
    if model.special.bos is None:
        raise BadRequest("bos is true, and this model has no BOS token", "bos")
    return (first_id(model, "bos"),)


async def run(texts: Sequence[Text], body: SurprisalBody, model: ServedModel, call: Call) -> None:
    window, stride = window_of(body, model)
    work = [
        Window(text, *places)
        for text in texts
        for places in windows(len(text.tokens), window, stride)
    ]
    await run_waves(model.engine, call, work)


def answer(texts: Sequence[Text], body: SurprisalBody, model: ServedModel, call_id: str) -> Json:
    num_cached = sum(text.num_cached for text in texts)
    num_prompt = sum(len(text.tokens) for text in texts)
    return {
        "id": call_id,
        "object": "surprisal",
        "model": model.name,
        "unit": body.unit,
        "results": [result(i, text, body, model) for i, text in enumerate(texts)],
        "usage": usage(num_prompt, 0, num_cached),
        "computed": computed(model, "raw", num_cached),
    }


def result(index: int, text: Text, body: SurprisalBody, model: ServedModel) -> Json:
    unit = LOG_2 if body.unit == "bits" else 1.0
    words = find_words(text.text, text.pieces, model.tokenizer)
    return {
        "index": index,
        "bos": bool(text.bos),
        "tokens": [token(told, unit, model) for told in text.told],
        "words": [word(each, text, unit, model) for each in words] if body.by == "word" else None,
        "totals": totals(text, len(words), unit),
    }


def token(told: Told, unit: float, model: ServedModel) -> Json:
    score = told.score
    return {
        "id": told.piece.token,
        "text": model.tokenizer.token_text(told.piece.token),
        "start": told.piece.start,
        "end": told.piece.end,
        "surprisal": None if score is None else (0.0 - finite(score.logprob)) / unit,
        "rank": None if score is None else score.rank,
        "entropy": None if told.entropy is None else told.entropy / unit,
    }


def word(found: Word, text: Text, unit: float, model: ServedModel) -> Json:
    corrected, plain = word_nats(found, text.told, text.mass_at_end, model.tokenizer)
    return {
        "text": text.text[found.start : found.end],
        "start": found.start,
        "end": found.end,
        "surprisal": None if corrected is None else corrected / unit,
        "uncorrected": None if plain is None else plain / unit,
        "first_token": found.first,
        "num_tokens": found.last - found.first,
    }


def totals(text: Text, num_words: int, unit: float) -> Json:
    scored = [told for told in text.told if told.score is not None]
    nats = sum_nats(scored) or 0.0
    size, characters = len(text.text.encode()), len(text.text)
    return {
        "tokens": len(text.pieces),
        "scored_tokens": len(scored),
        "words": num_words,
        "characters": characters,
        "bytes": size,
        "surprisal": nats / unit,
        "perplexity": math.exp(min(nats / len(scored), 700.0)) if scored else None,
        "bits_per_byte": nats / LOG_2 / size if scored else None,
        "bits_per_character": nats / LOG_2 / characters if scored else None,
    }
