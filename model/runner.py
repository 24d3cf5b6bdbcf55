"""
Rows -> tensors -> forward -> tokens and log-probabilities: the one way from server/ to the model.

It knows pages and rows, not requests: who runs when, and which page is whose, comes from
server/engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from model.answers import Answer, Place, answer_places, score_targets
from model.assemble import Parts
from model.families import FAMILIES
from model.kernels import InputBits, Kernels, choose
from model.kv_pool import KVPool
from model.paged import Batch, PagedMemory, plan
from model.precision import Precision, settled
from model.program import record
from model.step import Ask, Drawn, Report, Row, Sampled, Score
from model.transformer import Transformer
from weights.checkpoint import Checkpoint

Scored = tuple[tuple[Score, ...], tuple[Report, ...]]  # of a row's targets
UNSCORED: Scored = (), ()


def build_transformer(
    checkpoint: Checkpoint,
    precision: Precision = "auto",
    kernels: Kernels | None = None,
    mlp_input_bits: InputBits = 16,
) -> Transformer:
    """precision: how matrices are held. Everything else is float32."""
    parts = Parts(
        checkpoint.tensors,
        settled(precision, checkpoint),
        kernels or choose(),
        checkpoint.packed,
        mlp_input_bits,
    )
    return FAMILIES[checkpoint.config.family](checkpoint.config, parts)


def build_runner(
    checkpoint: Checkpoint,
    *,
    precision: Precision = "auto",
    num_pages: int,
    threads: int | None = None,
) -> Runner:
    """threads: of the arithmetic; None is torch's own choice, one a physical core."""
    pool = KVPool(checkpoint.config, num_pages)
    return Runner(build_transformer(checkpoint, precision, choose(threads)), pool)


class Runner:
    """page_size, num_pages and vocab_size are for the engine, kernels is for who asks."""

    def __init__(self, transformer: Transformer, pool: KVPool) -> None:
        self.transformer, self.pool = transformer, pool
        self.page_size, self.num_pages = pool.page_size, pool.num_pages
        self.vocab_size = transformer.embedding.vocab_size
        self.kernels, self._kernels = transformer.kernels.name, transformer.kernels
        self._program = record(transformer, pool)

    @torch.inference_mode()
    def step(self, rows: Sequence[Row]) -> list[Sampled]:
        """
        One batched forward pass; one Sampled a row, in order.

        FloatingPointError where a hidden state is not finite: the pages written are then cleared
        for their next owner.
        """
        batch = plan(rows, self.page_size)
        self._copy_pages(rows)
        hidden = self._states(batch)
        answers = self._answer(rows, batch, hidden)
        scored = self._score(rows, batch, hidden)
        return [
            sampled(row, answers.get(r, []), scored.get(r, UNSCORED)) for r, row in enumerate(rows)
        ]

    def _states(self, batch: Batch) -> Tensor:
        """-> (N,C), and behind them those kept of the pages that rows without tokens end with."""
        kept = self.pool.last_hidden(batch.kept) if batch.kept else None
        if kept is not None and not len(batch.tokens):
            return kept
        hidden = self.forward(batch)
        if not self._kernels.is_finite(hidden):
            self.pool.clear(batch.slots // self.page_size)
            raise FloatingPointError("the model's hidden states are not finite")
        self._keep_hidden(batch, hidden)
        return hidden if kept is None else torch.cat((hidden, kept))

    def forward(self, batch: Batch) -> Tensor:
        """-> (N,C), normed and ready for `embedding.logits`."""
        x = self.transformer.enter(batch.tokens, batch.positions)
        if self._program is not None:
            return self._program.run(x, batch)
        memory = PagedMemory(self.pool, batch, self._kernels)
        return self.transformer.run(x, batch.positions, memory)

    def _copy_pages(self, rows: Sequence[Row]) -> None:
        """In the order of the rows: a page may be copied from, and then be a later row's own."""
        for row in rows:
            if row.copied_from is not None:
                page, count = divmod(row.start, self.page_size)
                self.pool.copy(row.copied_from, row.pages[page], count)

    def _keep_hidden(self, batch: Batch, hidden: Tensor) -> None:
        if batch.filled:
            ends, pages = (torch.tensor(each) for each in zip(*batch.filled, strict=True))
            self.pool.keep_hidden(pages, hidden[ends])

    def _answer(self, rows: Sequence[Row], batch: Batch, hidden: Tensor) -> dict[int, list[Answer]]:
        """By row: one answer, and one more a draft."""
        places, ends, owners = [], [], []
        for r, row in enumerate(rows):
            if row.sampling is None and row.ask is None:
                continue
            for i in range(row.num_drafts + 1):
                places.append(Place(row, i))
                ends.append(batch.ends[r] - row.num_drafts + i)
                owners.append(r)
        if not places:
            return {}
        states = hidden if len(ends) == len(hidden) else hidden[torch.tensor(ends)]
        answers = answer_places(places, states, self.transformer.embedding)
        found: dict[int, list[Answer]] = {}
        for r, answer in zip(owners, answers, strict=True):
            found.setdefault(r, []).append(answer)
        return found

    def _score(self, rows: Sequence[Row], batch: Batch, hidden: Tensor) -> dict[int, Scored]:
        """By row with targets. Rows that ask alike are projected together."""
        alike: dict[Ask | None, list[int]] = {}
        for r, row in enumerate(rows):
            if row.targets:
                alike.setdefault(row.targets_ask, []).append(r)
        found: dict[int, Scored] = {}
        for ask, those in alike.items():
            states = [self._scored_states(rows[r], hidden[batch.firsts[r] :]) for r in those]
            targets = torch.tensor([target for r in those for target in rows[r].targets])
            scores, reports = score_targets(
                joined(states), targets, ask, self.transformer.embedding
            )
            ends = accumulate(len(rows[r].targets) for r in those)
            for r, end in zip(those, ends, strict=True):
                part = slice(end - len(rows[r].targets), end)
                found[r] = tuple(scores[part]), tuple(reports[part])
        return found

    def _scored_states(self, row: Row, hidden: Tensor) -> list[Tensor]:
        """hidden (N',C) from the row's first token on -> parts of one state for each target."""
        count = len(row.targets)
        if row.first_target < 0:
            before = self.pool.last_hidden([row.pages[row.start // self.page_size - 1]])
            return [before, hidden[: count - 1]]
        return [hidden[row.first_target : row.first_target + count]]


def joined(parts: Sequence[Sequence[Tensor]]) -> Tensor:
    flat = [each for part in parts for each in part]
    return flat[0] if len(flat) == 1 else torch.cat(flat)


def sampled(row: Row, answers: Sequence[Answer], scored: Scored) -> Sampled:
    drawn = accepted(row, [each for each in answers if isinstance(each, Drawn)])
    report = answers[0] if answers and isinstance(answers[0], Report) else None
    return Sampled(drawn, report, *scored)


def accepted(row: Row, drawn: Sequence[Drawn]) -> tuple[Drawn, ...]:
    """Of the tokens drawn, those before which every draft was drawn too."""
    drafts = row.tokens[len(row.tokens) - row.num_drafts :]
    count = 0
    while count < len(drafts) and drawn[count].token == drafts[count]:
        count += 1
    return tuple(drawn[: count + 1])
