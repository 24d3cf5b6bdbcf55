"""A step replayed from its recorded calls against the Python model it was recorded from."""

import itertools
import random
from dataclasses import replace

import pytest
import torch

from model.kernels import TorchKernels
from model.kernels.tape import ARENA, BOUND, CONSTANT, LINE, Note, place
from model.kv_pool import KVPool
from model.program import record
from model.runner import Runner, build_transformer
from model.step import Row, Sampling
from tests.model.parity import Ours, prompt
from tests.model.tiny_families import TINY, make, save
from tests.weights.tiny import tiny_hf
from weights.load import load


@pytest.mark.parametrize("variant", TINY)
def test_every_family_is_replayed_to_the_last_bit(variant, tmp_path):
    """In chunks of many sizes, so that one recording serves any number of tokens."""
    ours = Ours(save(make(variant), tmp_path))
    tokens, company = prompt(3), prompt(4)
    replayed = ours.chunked(tokens, company, is_replayed=True)
    assert torch.equal(replayed, ours.chunked(tokens, company))
    assert record(ours.transformer, KVPool(ours.config, 2)) is not None


def test_a_part_that_torch_computes_leaves_the_step_to_python_and_says_so(tmp_path, caplog):
    checkpoint = load(tiny_hf(tmp_path, "llama"))
    whole = build_transformer(checkpoint)
    first = whole.blocks[0]
    odd = replace(first, mlp=lambda x, onto: first.mlp(x * 1.0, onto))
    partly = replace(whole, blocks=[odd, *whole.blocks[1:]])
    assert record(partly, KVPool(checkpoint.config, 2)) is None
    assert "linear is given what no native function wrote" in caplog.text
    row = Row([5, 6, 7], 0, [0], Sampling(temperature=0.0))
    drawn = [Runner(each, KVPool(checkpoint.config, 2)).step([row]) for each in (partly, whole)]
    assert drawn[0] == drawn[1]


def test_a_result_that_torch_computes_is_not_taken_for_a_recorded_one(tmp_path, caplog):
    checkpoint = load(tiny_hf(tmp_path, "llama"))
    whole = build_transformer(checkpoint)
    odd = replace(whole, final_norm=lambda x: x + 1.0)
    assert record(odd, KVPool(checkpoint.config, 2)) is None
    assert "the result is given what no native function wrote" in caplog.text


def test_the_reference_is_never_replayed(tmp_path):
    checkpoint = load(tiny_hf(tmp_path, "llama"))
    transformer = build_transformer(checkpoint, kernels=TorchKernels())
    assert record(transformer, KVPool(checkpoint.config, 2)) is None


def note(*buffers):
    return Note("f", tuple((ARENA, buffer) for buffer in buffers))


def test_the_worked_example_of_place():
    starts, total = place([note(0, 1), note(1, 2), note(2, 3)], [LINE, LINE, LINE, LINE])
    assert starts == [0, LINE, 0, LINE]
    assert total == 2 * LINE


def test_what_is_in_use_at_one_time_does_not_overlap():
    chance = random.Random(0)
    for _ in range(300):
        sizes = [chance.randrange(1, 400) for _ in range(chance.randrange(1, 12))]
        notes = [
            note(*chance.sample(range(len(sizes)), min(len(sizes), chance.randrange(1, 4))))
            for _ in range(chance.randrange(1, 15))
        ]
        notes.append(Note("g", ((CONSTANT, 3), (BOUND, 1))))
        starts, total = place(notes, sizes)
        uses = [[b for _, b in each.arguments] for each in notes[:-1]]
        for at in range(len(uses)):
            alive = {
                b
                for b in range(len(sizes))
                if any(b in each for each in uses[: at + 1])
                and any(b in each for each in uses[at:])
            }
            ranges = sorted((starts[b], starts[b] + sizes[b]) for b in alive)
            assert all(a[1] <= b[0] for a, b in itertools.pairwise(ranges))
            assert all(start % LINE == 0 and end <= total for start, end in ranges)
