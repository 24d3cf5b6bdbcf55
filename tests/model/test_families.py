"""Every family against transformers, on random checkpoints that transformers itself writes."""

from dataclasses import replace

import pytest
import torch

from model.generate import logits
from model.runner import build_runner, build_transformer
from model.step import Ask, Row
from tests.model.parity import Ours, measure, prompt
from tests.model.tiny_families import TINY, make, save
from weights.families import FAMILIES
from weights.load import load
from weights.rope import for_context

TOLERANCE = 1e-4


@pytest.mark.parametrize("variant", TINY)
def test_logits_and_greedy_tokens_are_transformers(variant, tmp_path):
    """Whole, and chunked in a mixed batch, by the native kernels and by the reference."""
    theirs = make(variant)
    folder = save(theirs, tmp_path)
    differences, expected = measure(theirs, folder)
    assert max(differences.values()) < TOLERANCE, differences
    assert expected.std() > 0.3  # a model that says the same of every token would prove nothing
    start = prompt(5, 20)
    with torch.no_grad():
        greedy = theirs.generate(
            torch.tensor([start]), max_new_tokens=32, do_sample=False, eos_token_id=None
        )[0]
    ours = Ours(folder)
    assert ours.greedy(start, 32) == greedy[len(start) :].tolist()
    assert has_one_matrix(ours.transformer)


def has_one_matrix(transformer):
    """No storage but the embedding's is as large as it, and the tied parameters are there once."""
    table = transformer.embedding.table
    storages = transformer.storages()
    return storages[table.data_ptr()] == table.numel() * 4 and not any(
        size == table.numel() * 4 for at, size in storages.items() if at != table.data_ptr()
    )


@pytest.mark.parametrize("variant", [name for name in TINY if ":" not in name])
def test_bits_depend_on_neither_chunks_nor_company(variant, tmp_path):
    ours = Ours(save(make(variant), tmp_path))
    tokens = prompt(3)
    first = ours.chunked(tokens, prompt(4))
    assert torch.equal(first, ours.chunked(tokens, prompt(8), cuts=(5, 6, 7, 40, 152)))
    assert torch.equal(first, ours.chunked(tokens, prompt(4), cuts=()))


def test_texts_beyond_longropes_original_context_are_transformers_with_the_long_divisors(tmp_path):
    theirs = make("phi3: LongRoPE over a part of a head")
    checkpoint = load(save(theirs, tmp_path))
    longer = replace(checkpoint, config=for_context(checkpoint.config, 1024))
    tokens = prompt(10, 300)
    with torch.no_grad():
        expected = theirs(torch.tensor([tokens])).logits[0]
    found = logits(build_transformer(longer), tokens)
    assert torch.allclose(found, expected, atol=1e-4, rtol=0)
    assert not torch.allclose(logits(build_transformer(checkpoint), tokens), expected, atol=1e-2)


def test_reported_logits_are_the_models_own_after_scale_and_cap(tmp_path):
    theirs = make("gemma2: tight caps")
    runner = build_runner(load(save(theirs, tmp_path)), num_pages=4)
    tokens = prompt(9, 12)
    ask = Ask(top=3, ids=(3, 4))
    (sampled,) = runner.step([Row(tokens, 0, [0], ask=ask)])
    with torch.no_grad():
        expected = theirs(torch.tensor([tokens])).logits[0, -1]
    assert float(expected.abs().max()) < 1.5  # the cap
    told = {score.token: score.logit for score in (*sampled.report.top, *sampled.report.ids)}
    assert len(told) >= 3
    for token, logit in told.items():
        assert logit == pytest.approx(float(expected[token]), abs=1e-4)


def test_every_family_is_compared():
    assert {variant.split(":")[0] for variant in TINY} == {family.name for family in FAMILIES}
