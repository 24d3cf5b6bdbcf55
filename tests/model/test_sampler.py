"""
The sampler against transformers' logits processors, and its draws against the distribution they are
drawn from.
"""

import pytest
import torch
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from model.kernels import TorchKernels
from model.sampler import draw, scale, truncate, uniform
from model.step import Row, Sampling

V = 3000
PROMPT, OUTPUT = (1, 2, 3, 2), (7, 8, 7)


def processed(logits, sampling, **row):
    row = Row([0], 0, [0], sampling, prompt=PROMPT, output=OUTPUT, **row)
    return truncate(scale(logits, row, sampling).log_softmax(-1), sampling, TorchKernels())


@pytest.fixture
def logits():
    return torch.randn(V, generator=torch.Generator().manual_seed(1)) * 3


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("top_k", [0, 1, 5, 400])
@pytest.mark.parametrize("top_p", [0.05, 0.9, 0.999, 1.0])
@pytest.mark.parametrize("penalty", [1.0, 1.7])
def test_processed_distribution_is_transformers(logits, temperature, top_k, top_p, penalty):
    chain = [RepetitionPenaltyLogitsProcessor(penalty), TemperatureLogitsWarper(temperature)]
    chain += [TopKLogitsWarper(top_k)] if top_k else []
    chain += [TopPLogitsWarper(top_p)] if top_p < 1 else []
    chain += [MinPLogitsWarper(0.01)]
    seen = torch.tensor([PROMPT + OUTPUT])
    expected = LogitsProcessorList(chain)(seen, logits[None].clone())[0].log_softmax(-1)
    sampling = Sampling(
        temperature=temperature, top_k=top_k, top_p=top_p, min_p=0.01, repetition_penalty=penalty
    )
    ours = processed(logits, sampling)
    assert torch.equal(ours.isneginf(), expected.isneginf())
    kept = ~ours.isneginf()
    assert torch.allclose(ours[kept], expected[kept], atol=1e-5)


def test_top_p_beyond_the_likeliest_candidates_falls_back_to_the_whole_vocabulary():
    flat = torch.zeros(V)
    kept = ~processed(flat, Sampling(top_p=0.49995)).isneginf()
    assert kept.nonzero().flatten().tolist() == list(range(V // 2))


def test_top_k_keeps_exactly_k_among_ties_the_lowest_ids():
    ours = processed(torch.zeros(V), Sampling(top_k=7))
    assert (~ours.isneginf()).nonzero().flatten().tolist() == list(range(7))


def test_penalties_count_the_output_alone(logits):
    sampling = Sampling(presence_penalty=0.5, frequency_penalty=0.25)
    row = Row([0], 0, [0], sampling, prompt=PROMPT, output=OUTPUT)
    change = scale(logits, row, sampling) - logits
    assert change[[1, 2, 3, 7, 8]].tolist() == pytest.approx([0, 0, 0, -1.0, -0.75], abs=1e-6)


def test_bias_and_masks_leave_the_rest_alone(logits):
    allowed = bytearray(-(-V // 8))
    for token in (4, 5, 6, 9):
        allowed[token // 8] |= 1 << token % 8
    sampling = Sampling(allowed_ids=(4, 5, 6, 10), logit_bias=((5, 2.0),))
    ours = processed(logits, sampling, allowed=bytes(allowed), banned=(6,))
    assert (~ours.isneginf()).nonzero().flatten().tolist() == [4, 5]
    expected = torch.stack([logits[4], logits[5] + 2.0]).log_softmax(-1)
    assert torch.allclose(ours[4:6], expected)


def test_where_nothing_but_banned_tokens_is_allowed_they_may_follow(logits):
    ours = processed(logits, Sampling(allowed_ids=(6,)), banned=(6, 7))
    assert ours[6] == 0.0
    assert (~ours.isneginf()).sum() == 1


def test_temperature_zero_is_certain_of_the_lowest_of_the_likeliest():
    logits = torch.zeros(V)
    logits[[40, 50]] = 3.0
    ours = processed(logits, Sampling(temperature=0.0))
    assert ours[40] == 0.0
    assert (~ours.isneginf()).sum() == 1


def test_inputs_are_left_as_they_were(logits):
    before = logits.clone()
    processed(logits, Sampling(temperature=0.5, logit_bias=((1, 1.0),), top_k=3), banned=(2,))
    assert torch.equal(logits, before)


def test_draws_follow_the_distribution():
    logprobs = torch.tensor([0.5, 0.0, 0.3, 0.2, 0.0]).log()
    counts = torch.zeros(5)
    for index in range(20_000):
        counts[draw(logprobs, seed=3, index=index)] += 1
    assert counts[1] == counts[4] == 0
    # Five standard deviations of a binomial share.
    assert torch.allclose(counts / 20_000, logprobs.exp(), atol=5 * (0.25 / 20_000) ** 0.5)


def test_draws_depend_on_seed_and_index_alone():
    numbers = [uniform(seed, index) for seed in range(50) for index in range(50)]
    assert numbers == [uniform(seed, index) for seed in range(50) for index in range(50)]
    assert len(set(numbers)) == 2500
    assert all(0.0 <= number < 1.0 for number in numbers)
    assert abs(sum(numbers) / 2500 - 0.5) < 0.03


def test_the_last_possible_number_draws_a_possible_token(monkeypatch):
    monkeypatch.setattr("model.sampler.uniform", lambda seed, index: 1.0 - 2.0**-53)
    logprobs = torch.tensor([0.9, 0.1, 0.0]).log()
    assert draw(logprobs, 0, 0) == 1
