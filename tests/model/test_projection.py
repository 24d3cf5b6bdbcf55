"""
The output projection answered block by block has the bits of whole rows of logits: on random
shapes, tails and ties, on what is not finite, and on both real checkpoints.
"""

from __future__ import annotations

import random

import pytest
import torch

from model import blockwise
from model.answers import Place, answer_all
from model.blockwise import Scoring
from model.kernels import NativeKernels, Output, TorchKernels, Wanted, choose
from model.kernels.reference_projection import project
from model.kv_pool import KVPool
from model.paged import plan
from model.runner import Runner, build_transformer
from model.step import Ask, Row, Sampling
from tests.model.test_quantised import random_matrix
from tests.reference import NAMES
from weights.catalog import resolve
from weights.load import load
from weights.quant import KINDS

pytestmark = pytest.mark.usefixtures("poisoned")

GREEDY = Sampling(temperature=0.0)
TABLES = ["float32", "bfloat16", *(kind.name for kind in KINDS.values())]
SHAPES = [(1, 1), (15, 40), (64, 32), (1003, 33), (1024, 96), (1025, 64), (5000, 64)]  # (V,C)
NUMS_OF_ROWS = (1, 7, 130)


def table_of(name, vocab_size, width):
    if name in ("float32", "bfloat16"):
        return torch.randn(vocab_size, width).mul_(0.3).to(getattr(torch, name))
    kind = next(kind for kind in KINDS.values() if kind.name == name)
    return random_matrix(kind, vocab_size, width)


def every_wish(num_rows, vocab_size):
    ids = torch.randint(vocab_size, (num_rows, 2))
    for top in {0, 1, min(20, vocab_size), min(64, vocab_size)}:
        yield Wanted(ids, top, entropies=bool(top % 2))
    yield Wanted(None, min(3, vocab_size), entropies=True)
    yield Wanted(top=1, sums=False)
    yield Wanted(ids[:, :1])


def is_equal(ours, theirs):
    for name in ("sums", "entropies", "id_logits", "ranks", "top_ids", "top_logits"):
        mine, other = getattr(ours, name), getattr(theirs, name)
        assert (mine is None) == (other is None), name
        if mine is not None:
            assert mine.shape == other.shape, name
            assert torch.allclose(mine, other, rtol=0, atol=0, equal_nan=True), name
    return True


def check(kernels, hidden, output, vocab_size):
    for wanted in every_wish(len(hidden), vocab_size):
        assert is_equal(
            kernels.project(hidden, output, wanted), project(kernels, hidden, output, wanted)
        )


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize(("vocab_size", "width"), SHAPES)
def test_it_has_the_bits_of_whole_rows(kernels, name, vocab_size, width):
    torch.manual_seed(vocab_size)
    output = Output(table_of(name, vocab_size, width))
    for num_rows in NUMS_OF_ROWS:
        check(kernels, torch.randn(num_rows, width), output, vocab_size)


@pytest.mark.parametrize(("scale", "cap"), [(0.25, None), (1.0, 5.0), (3.0, 2.0), (1.0, 1e-3)])
def test_a_scale_and_a_cap_are_those_of_whole_rows(kernels, scale, cap):
    """A small cap makes nearly all of them near each other."""
    torch.manual_seed(0)
    output = Output(table_of("float32", 3000, 48), scale, cap)
    check(kernels, torch.randn(20, 48) * 4, output, 3000)


@pytest.mark.parametrize("spread", [0.0, 1e-7, 1.0, 1e3, 1e6])
def test_ties_and_what_is_nearly_one_are_told_as_of_whole_rows(kernels, spread):
    """At 1e3 tokens are beyond the distance allowed for; at 0 all are equal."""
    torch.manual_seed(1)
    table = torch.randint(-2, 3, (2500, 8)).float()
    hidden = torch.randint(-2, 3, (40, 8)).float()
    hidden[1] = 0.0
    check(kernels, hidden * spread, Output(table), 2500)
    check(kernels, hidden + torch.randn(40, 8) * 1e-6, Output(table), 2500)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 1e38])
def test_what_is_not_finite_is_told_as_of_whole_rows(kernels, value):
    torch.manual_seed(2)
    table, hidden = torch.randn(2500, 32), torch.randn(9, 32)
    table[[3, 1500, 2499], 5] = value
    check(kernels, hidden, Output(table), 2500)
    hidden[4, 7] = value
    check(kernels, hidden, Output(table), 2500)
    check(kernels, hidden, Output(random_matrix(KINDS["Q8_0"], 2500, 32)), 2500)


def test_a_row_knows_no_neighbour_and_no_thread(kernels):
    torch.manual_seed(3)
    output, hidden = Output(random_matrix(KINDS["Q8_0"], 4000, 64)), torch.randn(100, 64)
    wanted = Wanted(torch.randint(4000, (100, 1)), 5, entropies=True)
    together = kernels.project(hidden, output, wanted)
    one = NativeKernels(1, kernels.name)
    for row in (0, 63, 64, 99):
        alone = one.project(hidden[row : row + 1], output, _row(wanted, row))
        for name in ("sums", "entropies", "id_logits", "ranks", "top_ids", "top_logits"):
            assert torch.equal(getattr(alone, name)[0], getattr(together, name)[row])


def test_many_rows_are_those_of_a_few_at_a_time(kernels, monkeypatch):
    torch.manual_seed(5)
    output, hidden = Output(torch.randn(300, 16)), torch.randn(25, 16)
    whole = [each.project(hidden, output, w) for each, w in _everyone(kernels, 25)]
    monkeypatch.setattr("model.kernels.native_projection.MAX_ROWS", 7)
    monkeypatch.setattr("model.kernels.reference_projection.CHUNK_BYTES", 4 * 300 * 6)
    for before, (each, wanted) in zip(whole, _everyone(kernels, 25), strict=True):
        after = each.project(hidden, output, wanted)
        assert after.top_ids.tolist() == before.top_ids.tolist()
        if each is kernels:
            assert is_equal(after, before)


def _everyone(kernels, num_rows):
    ids = torch.arange(2 * num_rows).view(num_rows, 2)
    wishes = (Wanted(ids, 4, entropies=True), Wanted(top=1, sums=False), Wanted())
    return [(each, wanted) for each in (kernels, TorchKernels()) for wanted in wishes]


def _row(wanted, row):
    return Wanted(wanted.ids[row : row + 1], wanted.top, entropies=wanted.entropies)


def test_the_reference_says_the_same_within_its_roundings(kernels):
    torch.manual_seed(4)
    output, hidden = Output(torch.randn(3000, 64) * 0.3), torch.randn(30, 64)
    wanted = Wanted(torch.randint(3000, (30, 1)), 5, entropies=True)
    ours, theirs = (each.project(hidden, output, wanted) for each in (kernels, TorchKernels()))
    for name in ("sums", "entropies", "id_logits", "top_logits"):
        assert torch.allclose(getattr(ours, name), getattr(theirs, name), atol=1e-5), name


ASKS = [None, Ask(), Ask(top=1), Ask(top=20, summary=True), Ask(summary=True)]


@pytest.fixture(scope="module", params=NAMES)
def checkpoint(request):
    return load(resolve(request.param))


@pytest.fixture(scope="module", params=["auto", "float32", "bfloat16"])
def model(request, checkpoint):
    """(tied embedding, last hidden states of a text (70,C))"""
    transformer = build_transformer(checkpoint, request.param, choose(2))
    runner = Runner(transformer, KVPool(checkpoint.config, 5))
    text = random.Random(0).choices(range(5, 40_000), k=70)
    with torch.inference_mode():
        return transformer.embedding, runner.forward(plan([Row(text, 0, range(5))], 16))


def whole(monkeypatch):
    """From now on every row of logits is whole."""
    monkeypatch.setattr(blockwise, "serves", lambda _: False)
    monkeypatch.setattr("model.answers._is_blockwise", lambda _: False)


def test_real_tables_answer_as_whole_rows_do(model):
    embedding, hidden = model
    for num_rows in (1, 16, 70):
        check(embedding.kernels, hidden[:num_rows], embedding.output, embedding.vocab_size)


def test_scores_and_greedy_tokens_are_those_of_whole_rows(model, monkeypatch):
    embedding, hidden = model
    chance = torch.Generator().manual_seed(1)
    targets = torch.randint(embedding.vocab_size, (70,), generator=chance)
    targets[::2] = embedding.logits(hidden[::2]).argmax(-1)
    rows = [Row([1], 0, [0], GREEDY, ASKS[i % 5]) for i in range(35)]
    rows += [Row([1], 0, [0], None, ASKS[1 + i % 4]) for i in range(35)]
    places, silent = [Place(row) for row in rows], [Place(Row([1], 0, [0], GREEDY))] * 70

    scorings = [Scoring(targets, ask, hidden) for ask in ASKS]

    def told():
        return [answer_all(each, hidden, scorings, embedding) for each in (places, silent)]

    def told_apart():
        scored = [answer_all([], hidden[:0], [each], embedding)[1][0] for each in scorings]
        answers = [answer_all(each, hidden, [], embedding)[0] for each in (places, silent)]
        return [(each, scored) for each in answers]

    by_blocks = told()
    assert by_blocks == told_apart()
    whole(monkeypatch)
    assert by_blocks == told()
