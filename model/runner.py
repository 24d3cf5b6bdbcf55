"""
Rows -> tensors -> forward -> tokens and log-probabilities: the one way from server/ to the model.

It knows pages and rows, not requests: who runs when, and which page is whose, comes from
server/engine.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from model.answers import Answer, Place, answer_all
from model.assemble import Parts
from model.blockwise import Scored, Scoring
from model.families import FAMILIES
from model.kernels import InputBits, Kernels, choose
from model.kv_pool import KVPool
from model.paged import Batch, PagedMemory, plan
from model.precision import Precision, settled
from model.program import record
from model.step import Ask, Drawn, Report, Row, Sampled, Score
from model.transformer import Transformer
from weights.checkpoint import Checkpoint


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
        places, states, owners = self._places(rows, batch, hidden)
        alike = rows_by_ask(rows)
        scorings = [self._scoring(rows, those, batch, hidden) for those in alike]
        answers, scored = answer_all(places, states, scorings, self.transformer.embedding)
        return put_together(
            rows, zip(owners, answers, strict=True), zip(alike, scored, strict=True)
        )

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

    def _places(
        self, rows: Sequence[Row], batch: Batch, hidden: Tensor
    ) -> tuple[list[Place], Tensor, list[int]]:
        """Where rows draw or ask, one place and one a draft; the states there; whose each is."""
        places, ends, owners = [], [], []
        for r, row in enumerate(rows):
            if row.sampling is None and row.ask is None:
                continue
            for i in range(row.num_drafts + 1):
                places.append(Place(row, i))
                ends.append(batch.ends[r] - row.num_drafts + i)
                owners.append(r)
        if len(ends) != len(hidden):
            hidden = hidden[torch.tensor(ends, dtype=torch.int64)]
        return places, hidden, owners

    def _scoring(
        self, rows: Sequence[Row], those: Sequence[int], batch: Batch, hidden: Tensor
    ) -> Scoring:
        targets = [target for r in those for target in rows[r].targets]
        states = [part for r in those for part in self._scored(rows[r], hidden[batch.firsts[r] :])]
        return Scoring(
            torch.tensor(targets),
            rows[those[0]].targets_ask,
            states[0] if len(states) == 1 else torch.cat(states),
        )

    def _scored(self, row: Row, hidden: Tensor) -> list[Tensor]:
        """hidden (N',C) from the row's first token on -> parts of one state a target."""
        count = len(row.targets)
        if row.first_target < 0:
            before = self.pool.last_hidden([row.pages[row.start // self.page_size - 1]])
            return [before, hidden[: count - 1]]
        return [hidden[row.first_target : row.first_target + count]]


def rows_by_ask(rows: Sequence[Row]) -> list[list[int]]:
    """Those with targets, together where they ask the same of each."""
    alike: dict[Ask | None, list[int]] = {}
    for r, row in enumerate(rows):
        if row.targets:
            alike.setdefault(row.targets_ask, []).append(r)
    return list(alike.values())


def put_together(
    rows: Sequence[Row],
    answers: Iterable[tuple[int, Answer]],
    scored: Iterable[tuple[Sequence[int], Scored]],
) -> list[Sampled]:
    """Of answers, each with its row, and of scores, each with its rows, what each row brought."""
    by_row: list[list[Answer]] = [[] for _ in rows]
    for r, answer in answers:
        by_row[r].append(answer)
    of_targets: dict[int, tuple[tuple[Score, ...], tuple[Report, ...]]] = {}
    for those, (scores, reports) in scored:
        end = 0
        for r in those:
            begin, end = end, end + len(rows[r].targets)
            of_targets[r] = tuple(scores[begin:end]), tuple(reports[begin:end])
    return [
        sampled(row, own, *of_targets.get(r, ((), ())))
        for r, (row, own) in enumerate(zip(rows, by_row, strict=True))
    ]


def sampled(
    row: Row, answers: Sequence[Answer], scored: tuple[Score, ...], reports: tuple[Report, ...]
) -> Sampled:
    drawn = accepted(row, [each for each in answers if isinstance(each, Drawn)])
    report = answers[0] if answers and isinstance(answers[0], Report) else None
    return Sampled(drawn, report, scored, reports)


def accepted(row: Row, drawn: Sequence[Drawn]) -> tuple[Drawn, ...]:
    """Of the tokens drawn, those before which every draft was drawn too."""
    drafts = row.tokens[len(row.tokens) - row.num_drafts :]
    count = 0
    while count < len(drafts) and drawn[count].token == drafts[count]:
        count += 1
    return tuple(drawn[: count + 1])
