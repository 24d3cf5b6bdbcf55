import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.distribution import Told, reports, scores
from model.kernels import Draw, NativeKernels, TorchKernels, logprobs_of
from model.step import Ask
from tests.model.instruction_sets import AVAILABLE

COARSE = st.sampled_from([-3.0, -1.5, -1.0, -0.5, float("-inf")])  # so that ties are common


ALL = {name: NativeKernels(2, name) for name in AVAILABLE} | {"torch": TorchKernels()}


@pytest.fixture(params=ALL, scope="module")
def kernels(request):
    return ALL[request.param]


def slow_order(row):
    """Most likely first, ties to the lowest id, by Python's own stable sort."""
    return sorted(range(len(row)), key=lambda token: -row[token])


@given(st.lists(COARSE, min_size=40, max_size=40), st.integers(1, 40))
def test_top_tokens_are_the_slow_sort_even_among_ties(kernels, row, count):
    assert kernels.top(torch.tensor([row]), count)[0].tolist() == slow_order(row)[:count]


def test_top_tokens_of_a_large_vocabulary_are_the_slow_sort(kernels):
    torch.manual_seed(0)
    logprobs = (torch.randn(4, 50_000) * 8).round().div(8).log_softmax(-1)
    for count in (1, 20, 1000, 50_000):
        expected = [slow_order(row)[:count] for row in logprobs.tolist()]
        assert kernels.top(logprobs, count).tolist() == expected


@given(st.lists(COARSE, min_size=12, max_size=12), st.integers(0, 11))
def test_rank_is_the_place_in_the_slow_sort(kernels, row, token):
    logprobs = torch.tensor([row])
    first = torch.tensor([0])
    (score,) = scores(Told(logprobs, logprobs, None), first, torch.tensor([token]), kernels)
    assert score.rank == slow_order(row).index(token) + 1
    assert (score.token, score.logprob) == (token, row[token])


@pytest.mark.parametrize("vocab_size", [1, 2, 1003, 49_152, 262_144])
def test_log_softmax_is_exact_and_sums_to_one_over_large_vocabularies(vocab_size, kernels):
    torch.manual_seed(0)
    logits = torch.randn(3, vocab_size) * 4 + 50
    logprobs = kernels.log_softmax(logits)
    assert torch.allclose(logprobs.double(), logits.double().log_softmax(-1), atol=5e-6, rtol=0)
    assert torch.allclose(logprobs.double().exp().sum(-1), torch.ones(3).double(), atol=1e-6)


@pytest.mark.parametrize("vocab_size", [1, 17, 1000, 5000])
def test_ranks_of_many_tokens_are_their_places_in_the_slow_sort(kernels, vocab_size):
    torch.manual_seed(0)
    logprobs = (torch.randn(3, vocab_size) * 8).round()
    rows, tokens = torch.randint(3, (200,)), torch.randint(vocab_size, (200,))
    orders = [slow_order(row) for row in logprobs.tolist()]
    expected = [orders[r].index(t) + 1 for r, t in zip(rows.tolist(), tokens.tolist(), strict=True)]
    assert kernels.ranks(logprobs, rows, tokens).tolist() == expected


@pytest.mark.parametrize("shift", [0.0, -900.0, 3e4])
@pytest.mark.parametrize("vocab_size", [1, 17, 5000])
def test_logits_with_their_sum_are_their_log_softmax_bit_for_bit(kernels, vocab_size, shift):
    """Far from 0 many logits share one log-probability: their order is then that of their ids."""
    torch.manual_seed(vocab_size)
    logits = torch.randn(3, vocab_size) + shift
    logits[1] = shift + torch.randn(vocab_size) * 1e-6
    logits[2, 1:] = float("-inf")
    sums, logprobs = kernels.log_sum_exp(logits), kernels.log_softmax(logits)
    assert torch.equal(logprobs_of(logits, sums), logprobs)
    assert torch.allclose(kernels.entropy(logits), kernels.entropy(logprobs), rtol=1e-6, atol=1e-6)
    for count in {1, min(20, vocab_size), vocab_size}:
        assert torch.equal(kernels.top(logits, count, sums), kernels.top(logprobs, count))
    rows, tokens = torch.randint(3, (50,)), torch.randint(vocab_size, (50,))
    ranks = kernels.ranks(logits, rows, tokens, sums)
    assert torch.equal(ranks, kernels.ranks(logprobs, rows, tokens))
    greedy = [Draw(0.0, 0, 1.0, 0.0, 0.0)] * 3
    for known in (None, sums, torch.where(torch.arange(3) == 1, sums, torch.nan)):
        assert kernels.choose(logits, greedy, known)[0].tolist() == logprobs.argmax(-1).tolist()


def test_scores_of_most_of_the_vocabulary_are_those_of_a_few(kernels):
    torch.manual_seed(0)
    logits = (torch.randn(2, 2000) * 8).round()
    told = Told(logits, logits, kernels.log_sum_exp(logits))
    ids = tuple(torch.randperm(2000)[:1500].tolist())
    many = reports(Ask(ids=ids), told, kernels)
    for report, start in ((report, i) for report in many for i in (0, 700, 1400)):
        row = many.index(report)
        few = reports(Ask(ids=ids[start : start + 9]), told, kernels)[row]
        assert report.ids[start : start + 9] == few.ids


def test_log_softmax_of_forbidden_tokens_is_minus_infinity(kernels):
    logprobs = kernels.log_softmax(torch.tensor([[1.0, float("-inf"), 1.0]]))
    assert logprobs[0, 1] == float("-inf")
    assert logprobs[0, 0] == pytest.approx(-math.log(2), abs=1e-7)


def test_entropy_and_logsumexp_are_the_textbook_ones(kernels):
    torch.manual_seed(0)
    logits = torch.randn(3, 1000) * 4
    given = Told(logits, logits, kernels.log_sum_exp(logits))
    told = reports(Ask(summary=True), given, kernels)
    exact = logits.double()
    probabilities = exact.softmax(-1)
    for row, report in enumerate(told):
        nats = -sum(p * math.log(p) for p in probabilities[row].tolist())
        assert report.entropy == pytest.approx(nats, abs=1e-5)
        assert report.logsumexp == pytest.approx(float(exact[row].logsumexp(-1)), abs=1e-5)


def test_impossible_tokens_add_no_entropy(kernels):
    certain = torch.tensor([[0.0, float("-inf")]])
    (report,) = reports(Ask(summary=True), Told(certain, certain, None, certain), kernels)
    assert str(report.entropy) == "0.0"


def test_a_report_holds_what_was_asked_and_nothing_else(kernels):
    logits = torch.tensor([[0.0, 2.0, 1.0, -1.0]])
    told = Told(logits, logits, kernels.log_sum_exp(logits))
    (report,) = reports(Ask(top=2, ids=(3, 1), full=True), told, kernels)
    assert [(s.token, s.rank, s.logit) for s in report.top] == [(1, 1, 2.0), (2, 2, 1.0)]
    assert [(s.token, s.rank, s.logit) for s in report.ids] == [(3, 4, -1.0), (1, 1, 2.0)]
    assert report.full == kernels.log_softmax(logits).numpy().tobytes()
    assert report.entropy is None
    assert report.logsumexp is None
