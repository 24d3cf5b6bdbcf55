"""
The sampler against transformers' logits processors, and its draws against the distribution they are
drawn from.
"""

import random

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

from model.kernels import Draw, NativeKernels, TorchKernels
from model.sampler import draw_of, shift, uniform
from model.step import Row, Sampling
from tests.model.instruction_sets import AVAILABLE

V = 3000
PROMPT, OUTPUT = (1, 2, 3, 2), (7, 8, 7)


@pytest.fixture(params=[*AVAILABLE, "torch"])
def kernels(request):
    return TorchKernels() if request.param == "torch" else NativeKernels(2, request.param)


def processed(kernels, logits, sampling, **row):
    row = Row([0], 0, [0], sampling, prompt=PROMPT, output=OUTPUT, **row)
    draws = [draw_of(row, sampling)]
    return kernels.choose(shift(logits[None], [row]), draws, has_processed=True)[1][0]


@pytest.fixture
def logits():
    return torch.randn(V, generator=torch.Generator().manual_seed(1)) * 3


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("top_k", [0, 1, 5, 400])
@pytest.mark.parametrize("top_p", [0.05, 0.9, 0.999, 1.0])
@pytest.mark.parametrize("penalty", [1.0, 1.7])
def test_processed_distribution_is_transformers(
    kernels, logits, temperature, top_k, top_p, penalty
):
    chain = [RepetitionPenaltyLogitsProcessor(penalty), TemperatureLogitsWarper(temperature)]
    chain += [TopKLogitsWarper(top_k)] if top_k else []
    chain += [TopPLogitsWarper(top_p)] if top_p < 1 else []
    chain += [MinPLogitsWarper(0.01)]
    seen = torch.tensor([PROMPT + OUTPUT])
    expected = LogitsProcessorList(chain)(seen, logits[None].clone())[0].log_softmax(-1)
    sampling = Sampling(
        temperature=temperature, top_k=top_k, top_p=top_p, min_p=0.01, repetition_penalty=penalty
    )
    ours = processed(kernels, logits, sampling)
    assert torch.equal(ours.isneginf(), expected.isneginf())
    kept = ~ours.isneginf()
    assert torch.allclose(ours[kept], expected[kept], atol=1e-5)


def test_top_p_beyond_the_likeliest_candidates_falls_back_to_the_whole_vocabulary(kernels):
    flat = torch.zeros(V)
    kept = ~processed(kernels, flat, Sampling(top_p=0.49995)).isneginf()
    assert kept.nonzero().flatten().tolist() == list(range(V // 2))


def test_top_k_keeps_exactly_k_among_ties_the_lowest_ids(kernels):
    ours = processed(kernels, torch.zeros(V), Sampling(top_k=7))
    assert (~ours.isneginf()).nonzero().flatten().tolist() == list(range(7))


def test_penalties_count_the_output_alone(logits):
    sampling = Sampling(presence_penalty=0.5, frequency_penalty=0.25)
    row = Row([0], 0, [0], sampling, prompt=PROMPT, output=OUTPUT)
    change = shift(logits[None], [row])[0] - logits
    assert change[[1, 2, 3, 7, 8]].tolist() == pytest.approx([0, 0, 0, -1.0, -0.75], abs=1e-6)


def test_bias_and_masks_leave_the_rest_alone(kernels, logits):
    allowed = bytearray(-(-V // 8))
    for token in (4, 5, 6, 9):
        allowed[token // 8] |= 1 << token % 8
    sampling = Sampling(allowed_ids=(4, 5, 6, 10), logit_bias=((5, 2.0),))
    ours = processed(kernels, logits, sampling, allowed=bytes(allowed), banned=(6,))
    assert (~ours.isneginf()).nonzero().flatten().tolist() == [4, 5]
    expected = torch.stack([logits[4], logits[5] + 2.0]).log_softmax(-1)
    assert torch.allclose(ours[4:6], expected)


def test_where_nothing_but_banned_tokens_is_allowed_they_may_follow(kernels, logits):
    ours = processed(kernels, logits, Sampling(allowed_ids=(6,)), banned=(6, 7))
    assert ours[6] == 0.0
    assert (~ours.isneginf()).sum() == 1


def test_temperature_zero_is_certain_of_the_lowest_of_the_likeliest(kernels):
    logits = torch.zeros(V)
    logits[[40, 50]] = 3.0
    ours = processed(kernels, logits, Sampling(temperature=0.0))
    assert ours[40] == 0.0
    assert (~ours.isneginf()).sum() == 1


def test_inputs_are_left_as_they_were(kernels, logits):
    before = logits.clone()
    processed(
        kernels, logits, Sampling(temperature=0.5, logit_bias=((1, 1.0),), top_k=3), banned=(2,)
    )
    assert torch.equal(logits, before)


def test_draws_follow_the_distribution(kernels):
    logprobs = torch.tensor([0.5, 0.0, 0.3, 0.2, 0.0]).log()
    draws = [Draw(1.0, 0, 1.0, 0.0, uniform(3, index)) for index in range(20_000)]
    tokens, _ = kernels.choose(logprobs.repeat(len(draws), 1), draws)
    counts = tokens.bincount(minlength=5)
    assert counts[1] == counts[4] == 0
    # Five standard deviations of a binomial share.
    assert torch.allclose(counts / 20_000, logprobs.exp(), atol=5 * (0.25 / 20_000) ** 0.5)


def test_draws_depend_on_seed_and_index_alone():
    numbers = [uniform(seed, index) for seed in range(50) for index in range(50)]
    assert numbers == [uniform(seed, index) for seed in range(50) for index in range(50)]
    assert len(set(numbers)) == 2500
    assert all(0.0 <= number < 1.0 for number in numbers)
    assert abs(sum(numbers) / 2500 - 0.5) < 0.03


def test_the_last_possible_number_draws_a_possible_token(kernels):
    logprobs = torch.tensor([0.9, 0.1, 0.0]).log().repeat(2, 1)
    draws = [Draw(1.0, 0, top_p, 0.0, 1.0 - 2.0**-53) for top_p in (1.0, 0.999)]
    assert kernels.choose(logprobs, draws)[0].tolist() == [1, 1]


def random_draw(rng, vocab_size):
    return Draw(
        rng.choice([0.0, 0.1, 0.8, 1.0, 1.7]),
        rng.choice([0, 0, 1, 20, vocab_size // 2, vocab_size + 1]),
        rng.choice([1.0, 0.00013, 0.5003, 0.95, 0.9999]),
        rng.choice([0.0, 0.0, 0.01, 0.5]),
        rng.random(),
    )


@pytest.mark.parametrize("spread", [0.0, 0.1, 3.0, 30.0])
@pytest.mark.parametrize("vocab_size", [1, 2, 63, 1003, 20_000])
@pytest.mark.parametrize("name", AVAILABLE)
def test_native_choices_are_those_of_sorting(name, vocab_size, spread):
    """Coarse logits, so that ties are common; alone a row has the bits it has in company."""
    rng = random.Random(vocab_size)
    torch.manual_seed(vocab_size)
    logits = (torch.randn(24, vocab_size) * spread).mul_(8).round_().div_(8)
    logits[3, 1:] = float("-inf")
    logits[5] += torch.randn(vocab_size)
    draws = [random_draw(rng, vocab_size) for _ in logits]
    kernels = NativeKernels(2, name)
    tokens, shown = kernels.choose(logits, draws, has_processed=True)
    slow_tokens, slow_shown = TorchKernels().choose(logits, draws, has_processed=True)
    assert torch.equal(tokens, slow_tokens)
    assert torch.equal(shown.isneginf(), slow_shown.isneginf())
    kept = ~shown.isneginf()
    assert torch.allclose(shown[kept], slow_shown[kept], rtol=1e-6, atol=1e-6)
    assert torch.equal(kernels.choose(logits, draws)[0], tokens)
    for r in range(len(logits)):
        token, alone = kernels.choose(logits[r : r + 1], draws[r : r + 1], has_processed=True)
        assert token[0] == tokens[r]
        assert torch.equal(alone[0], shown[r])
