"""
Continuations of one context as a trie: each of its inner nodes is run once, and no leaf is.

What follows a node is asked for all of its children at once. A stretch of nodes with one child each
is one request, which scores the stretch; where the trie parts, each way on is a request of its own,
and begins behind what is computed (see Request.first_scored).

Worked example: "a b c", "a b d e" and "f" after the context C. The root is what follows C: it
scores a and f. Below a there is one child, b, so that "C a b" is one request: after a it scores b,
after b it scores c and d. The last is "C a b d", which scores e. Seven tokens beside C are scored;
three, a, b and d, are run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from model.step import Ask, Score
from server.api.waves import Call, Outcome
from server.engine.request import Request

Ids = tuple[int, ...]


@dataclass(slots=True)
class Trie:
    context: Ids  # at least one token
    paths: list[Ids]  # distinct, in order, none empty
    scores: dict[Ids, list[Score]] = field(default_factory=dict)  # of each path, a token at a time
    cached_tokens: int = 0  # of the context, found in the prefix cache

    def root(self) -> Branch:
        self.scores = {path: [] for path in self.paths}
        return Branch(self, 0, len(self.paths), 0)


def build_trie(context: Ids, continuations: Iterable[Ids]) -> Trie:
    return Trie(context, sorted(set(continuations)))


class Branch:
    """The paths [first, last) agree in their first `start` tokens, which are scored."""

    def __init__(self, trie: Trie, first: int, last: int, start: int) -> None:
        self.trie, self.start = trie, start
        self.paths = trie.paths[first:last]
        self.first = first
        self.end = self._end()  # how many tokens the stretch ends after

    def _end(self) -> int:
        """In order, a path stands before those that go on from it: so the last one goes on."""
        last, end, first = self.paths[-1], self.start, 0
        while True:
            first += len(self.paths[first]) == end
            if self.paths[first][end] != last[end] or len(last) == end + 1:
                return end
            end += 1

    def request(self, request_id: str, call: Call) -> Request:
        children = {path[self.end]: None for path in self.paths if len(path) > self.end}
        return Request(
            request_id,
            prompt=self.trie.context + self.paths[-1][: self.end],
            max_tokens=0,
            ask=Ask(ids=tuple(children)),
            prompt_ask=Ask(),
            first_scored=len(self.trie.context) + self.start,
            cache_salt=call.cache_salt,
            timeout=call.left(),
        )

    def take(self, outcome: Outcome) -> Sequence[Branch]:
        assert outcome.report is not None
        assert outcome.ending is not None
        if self.start == 0:
            self.trie.cached_tokens = min(outcome.ending.cached_tokens, len(self.trie.context))
        children = {score.token: score for score in outcome.report.ids}
        for path in self.paths:
            found = self.trie.scores[path]
            found += outcome.scored[: max(0, len(path) - self.start)]
            if len(path) > self.end:
                found.append(children[path[self.end]])
        return self._branches()

    def _branches(self) -> list[Branch]:
        """Where a child has children of its own."""
        found = []
        longer = [i for i, path in enumerate(self.paths) if len(path) > self.end]
        for _, group in groupby(longer, key=lambda i: self.paths[i][self.end]):
            inner = list(group)
            if len(self.paths[inner[-1]]) > self.end + 1:
                first, last = self.first + inner[0], self.first + inner[-1] + 1
                found.append(Branch(self.trie, first, last, self.end + 1))
        return found
