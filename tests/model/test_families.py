"""Every family against transformers, on random checkpoints that transformers itself writes."""

import pytest
import torch

from tests.model.parity import Ours, measure, prompt
from tests.model.tiny_families import TINY, make, save
from weights.families import FAMILIES

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
    assert Ours(folder).greedy(start, 32) == greedy[len(start) :].tolist()


def test_every_family_is_compared():
    assert {variant.split(":")[0] for variant in TINY} == {family.name for family in FAMILIES}
