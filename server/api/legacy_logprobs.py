"""
OpenAI's older form of log-probabilities, by parallel lists, as evaluation harnesses read it.

Its dictionaries are keyed by text, and two tokens may have the same text (a byte of a character
each). Here none is lost: the token that was chosen has its text, the most likely of the others the
text that is still free, and what is left the name `token_id:ID`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from model.step import Report, Score
from server.api.encode import finite
from server.api.tokens import Json, alternative
from server.text.tokenizer import TextTokenizer

LISTS = ("tokens", "token_logprobs", "top_logprobs", "text_offset", "top_logprobs_list")


class LegacyLogprobs:
    def __init__(self, tokenizer: TextTokenizer, count: int, is_named_by_id: bool) -> None:
        """`count`: how many alternatives. `is_named_by_id`: every token is called token_id:ID."""
        self._tokenizer, self._count, self._is_named_by_id = tokenizer, count, is_named_by_id

    def empty(self) -> Json:
        return {name: [] for name in LISTS}

    def of_first(self, token: int, offset: int) -> Json:
        """Nothing precedes it: it has no log-probability."""
        return self._one(self._name(token), None, None, offset, None)

    def of_token(self, chosen: Score, report: Report | None, offset: int) -> Json:
        listed = list(report.top[: self._count]) if report else []
        if all(score.token != chosen.token for score in listed):
            listed.append(chosen)
        return self._one(
            self._name(chosen.token),
            finite(chosen.logprob),
            self._by_text(chosen, listed),
            offset,
            [alternative(self._tokenizer, score) for score in listed],
        )

    def _one(
        self,
        name: str,
        logprob: float | None,
        top: Json | None,
        offset: int,
        listed: Sequence[Json] | None,
    ) -> Json:
        values = (name, logprob, top, offset, listed)
        return {key: [value] for key, value in zip(LISTS, values, strict=True)}

    def _by_text(self, chosen: Score, listed: Iterable[Score]) -> Json:
        found: Json = {}
        taken = {self._name(chosen.token)}
        for score in listed:
            name = self._name(score.token)
            if score.token != chosen.token:
                name = token_name(score.token) if name in taken else name
                taken.add(name)
            found[name] = finite(score.logprob)
        return found

    def _name(self, token: int) -> str:
        return token_name(token) if self._is_named_by_id else self._tokenizer.token_text(token)


def token_name(token: int) -> str:
    return f"token_id:{token}"


def extend(into: Json, more: Json) -> None:
    for name in LISTS:
        into[name] += more[name]
