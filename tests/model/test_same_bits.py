"""
Both real checkpoints, in every precision: a distribution is the same to the last bit alone, among
neighbours, in any chunks, in any pages, with any number of threads.
"""

import random

import pytest
import torch

from model.kernels import NativeKernels
from model.kv_pool import KVPool
from model.paged import PagedMemory, plan
from model.runner import Runner, build_transformer
from model.step import Ask, Row, Sampling
from tests.reference import NAMES
from weights.catalog import resolve
from weights.load import load

EVERYTHING = Ask(top=3, full=True, summary=True)
GREEDY = Sampling(temperature=0.0)
LENGTH = 75  # of the text: five pages, the last of them not full
NUM_PAGES = 128


@pytest.fixture(scope="module", params=NAMES)
def checkpoint(request):
    return load(resolve(request.param))


@pytest.fixture(
    scope="module",
    params=[(name, 16) for name in ("auto", "float32", "bfloat16", "int8", "int4")] + [("auto", 8)],
    ids=lambda how: f"{how[0]}-{how[1]}",
)
def runners(request, checkpoint):
    """The same weights, computed by one thread and by two."""
    precision, bits = request.param
    both = [build_transformer(checkpoint, precision, NativeKernels(n), bits) for n in (2, 1)]
    return [Runner(each, KVPool(checkpoint.config, NUM_PAGES)) for each in both]


def random_text(length, seed):
    return random.Random(seed).choices(range(5, 40_000), k=length)


def rows_of(text, start, end, pages, runner):
    targets = text[start + 1 : end + 1]
    held = pages[: -(-end // runner.page_size)]
    return Row(text[start:end], start, held, GREEDY, EVERYTHING, targets=targets)


def test_a_distribution_has_the_same_bits_in_any_company(runners):
    two, one = runners
    text = random_text(LENGTH + 1, 0)
    (alone,) = one.step([rows_of(text, 0, LENGTH, range(8), one)])
    chance = random.Random(9)
    pages = list(range(NUM_PAGES))
    chance.shuffle(pages)
    held = [[pages.pop() for _ in range(6)] for _ in range(16)]
    crowd = [random_text(LENGTH + 1, seed) for seed in range(1, 16)]
    scored, start = [], 0
    while start < LENGTH:
        end = min(LENGTH, start + chance.choice([1, 2, 5, 33]))
        rows = [rows_of(text, start, end, held[15], two)]
        for neighbour, mine in zip(crowd, held, strict=False):
            at = chance.randrange(LENGTH)
            rows.append(rows_of(neighbour, at, at + chance.choice([1, 1, 1, 9]), mine, two))
        order = chance.sample(range(16), 16)
        sampled = two.step([rows[i] for i in order])[order.index(0)]
        scored += sampled.scored
        start = end
    assert tuple(scored) == alone.scored
    assert sampled.drawn == alone.drawn


def test_torchs_own_threads_change_no_logit(runners):
    two, _ = runners
    text = random_text(LENGTH + 1, 0)
    before = torch.get_num_threads()
    logits = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        (sampled,) = two.step([rows_of(text, 0, LENGTH, range(8), two)])
        logits.append([score.logit for score in (*sampled.scored, *sampled.drawn[0].report.top)])
    torch.set_num_threads(before)
    assert logits[0] == logits[1] == logits[2]


def test_a_replayed_step_has_the_bits_of_the_python_model(runners):
    runner, _ = runners
    text = random_text(LENGTH, 0)
    rows = [
        Row(text[:40], 0, range(5)),
        Row(text[:1], 0, range(8, 13)),
        Row(text[:17], 0, [20, 21]),
    ]
    rows += [Row(text[17:18], 17, [20, 21])]
    for step in (rows[:3], rows[3:]):
        batch = plan(step, runner.page_size)
        with torch.inference_mode():
            replayed = runner.forward(batch)
            memory = PagedMemory(runner.pool, batch, runner.transformer.kernels)
            expected = runner.transformer.forward(batch.tokens, batch.positions, memory)
        assert torch.equal(replayed, expected)
