"""Paged attention: native against the reference, and against itself in other chunks and pages."""

import random

import pytest
import torch
from transformers.models.bloom import modeling_bloom
from transformers.models.falcon import modeling_falcon

from model.alibi import coarse, slopes
from model.attention import Scoring
from model.kernels import NativeKernels, Spans, TorchKernels
from tests.model.attention_bound import ROUNDING, rounding_bound
from tests.model.instruction_sets import AVAILABLE

SHAPES = [  # query heads, key-value heads, head width, page size
    (9, 3, 64, 16),
    (4, 1, 256, 16),
    (5, 5, 24, 4),
    (14, 2, 80, 33),
    (2, 1, 7, 5),
    (50, 1, 8, 16),
    (71, 1, 8, 16),
    (4, 2, 16, 32),
    (6, 2, 16, 32),
]
WINDOWS = [None, 1, 3, 16, 40]


class Sequences:
    """Keys and values of some sequences, in scattered pages of a pool whose rest is NaN."""

    def __init__(self, shape, lengths, seed=0):
        self.num_heads, num_kv_heads, head_dim, self.page_size = shape
        self.scale = head_dim**-0.5
        torch.manual_seed(seed)
        self.q = [torch.randn(n, self.num_heads, head_dim) for n in lengths]
        self.k, self.v = (
            [torch.randn(n, num_kv_heads, head_dim) for n in lengths] for _ in range(2)
        )
        self.scatter(seed)

    def scatter(self, seed, fill=float("nan")):
        counts = [-(-len(k) // self.page_size) for k in self.k]
        free = random.Random(seed).sample(range(2 * sum(counts)), sum(counts))
        self.pages = [[free.pop() for _ in range(count)] for count in counts]
        (num_heads, width), num_pages = self.k[0].shape[1:], 2 * sum(counts)
        self.keys = torch.full((num_pages, num_heads, width, self.page_size), fill)
        self.values = torch.full((num_pages, num_heads, self.page_size, width), fill)
        for k, v, pages in zip(self.k, self.v, self.pages, strict=True):
            for position in range(len(k)):
                page, offset = pages[position // self.page_size], position % self.page_size
                self.keys[page, ..., offset], self.values[page, :, offset] = (
                    k[position],
                    v[position],
                )

    def batch(self, chunks):
        """chunks: (sequence, start, end) -> q, spans"""
        rows, pages, first = [], [], 0
        for i, start, end in chunks:
            rows.append((first, start, end - start, len(pages)))
            pages += self.pages[i]
            first += end - start
        q = torch.cat([self.q[i][start:end] for i, start, end in chunks])
        return q, Spans(torch.tensor(rows), torch.tensor(pages))

    def attend(self, kernels, chunks, window, dtype=torch.float32, **bent):
        q, spans = self.batch(chunks)
        q, keys, values = (x.to(dtype) for x in (q, self.keys, self.values))
        return kernels.attend(q, keys, values, spans, Scoring(self.scale, window, **bent))

    def wholes(self):
        return [(i, 0, len(q)) for i, q in enumerate(self.q)]

    def bound(self, window, **bent):
        """The largest error of each element of `wholes`."""
        scoring = Scoring(self.scale, window, **bent)
        each = zip(self.q, self.k, self.v, strict=True)
        return torch.cat([rounding_bound(*qkv, scoring, self.page_size) for qkv in each])


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", AVAILABLE)
def test_native_attention_is_the_reference_and_reads_nothing_it_may_not_see(name, shape, window):
    sequences = Sequences(shape, [1, 16, 17, 70])
    torch.use_deterministic_algorithms(True)  # results begin as NaN
    native = sequences.attend(NativeKernels(2, name), sequences.wholes(), window)
    torch.use_deterministic_algorithms(False)
    sequences.scatter(0, fill=0.0)  # the reference multiplies what is masked by zero
    exact = sequences.attend(TorchKernels(), sequences.wholes(), window, torch.float64)
    assert torch.allclose(native.double(), exact, rtol=0, atol=1e-6)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", AVAILABLE)
def test_attention_has_the_same_bits_in_any_chunks_pages_company_and_threads(name, shape, window):
    sequences = Sequences(shape, [70, 3, 41])
    chance = random.Random(1)
    whole = sequences.attend(NativeKernels(1, name), [(0, 0, 70)], window)
    for threads in (1, 2, 5):
        kernels = NativeKernels(threads, name)
        sequences.scatter(threads)
        crowd = sequences.attend(kernels, [(1, 0, 3), (0, 0, 70), (2, 5, 41)], window)
        assert torch.equal(crowd[3:73], whole)
        start = 0
        while start < 70:
            end = min(70, start + chance.choice([1, 1, 2, 7, 20]))
            part = sequences.attend(kernels, [(2, 40, 41), (0, start, end)], window)
            assert torch.equal(part[1:], whole[start:end])
            start = end


BENT = {
    "capped": lambda heads: {"cap": 0.7},
    "with slopes": lambda heads: {"slopes": slopes(heads, 8.0)},
    "both": lambda heads: {"cap": 2.0, "slopes": slopes(heads, 4.0)},
    "coarse": lambda heads: {"slopes": slopes(heads, 8.0), "is_coarse": True},
    "capped and coarse": lambda heads: {
        "slopes": slopes(heads, 8.0),
        "is_coarse": True,
        "cap": 2.0,
    },
}


@pytest.mark.parametrize(
    ("bent", "window"),
    [(name, window) for name in BENT for window in (None, 3) if not (window and "coarse" in name)],
)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", AVAILABLE)
def test_bent_scores_are_the_references_with_the_same_bits_in_any_chunks(name, shape, window, bent):
    sequences = Sequences(shape, [1, 17, 70])
    for q in sequences.q:
        q *= 3  # scores well beyond the caps
    bent, kernels = BENT[bent](shape[0]), NativeKernels(2, name)
    whole = sequences.attend(kernels, sequences.wholes(), window, **bent)
    parts = [(2, 0, 5), (0, 0, 1), (2, 5, 6), (2, 6, 70)]
    cut = sequences.attend(NativeKernels(5, name), parts, window, **bent)
    assert torch.equal(torch.cat((cut[:5], cut[6:])), whole[18:])
    sequences.scatter(0, fill=0.0)
    exact = sequences.attend(TorchKernels(), sequences.wholes(), window, torch.float64, **bent)
    errors = (whole.double() - exact).abs()
    assert (errors <= sequences.bound(window, **bent)).all()
    assert errors.square().mean().sqrt() < 4 * ROUNDING  # they do not conspire
    plain = sequences.attend(kernels, sequences.wholes(), window)
    assert window == 1 or not torch.allclose(plain, whole, atol=1e-3)


@pytest.mark.parametrize("num_heads", [1, 8, 12, 71])
def test_slopes_are_transformers(num_heads):
    theirs = modeling_bloom.build_alibi_tensor(torch.ones(1, 2), num_heads, torch.float32)[:, 0, 1]
    assert torch.allclose(slopes(num_heads, 8.0), theirs, rtol=1e-6)
    assert slopes(num_heads, 4.0).min() >= 2**-4


@pytest.mark.parametrize("num_heads", range(1, 130, 4))
def test_coarse_biases_are_those_of_transformers_falcon_bit_for_bit(num_heads):
    mask = torch.ones(1, 2100, dtype=torch.int64)
    theirs = modeling_falcon.build_alibi_tensor(mask, num_heads, torch.float32)[:, 0]
    ours = coarse(slopes(num_heads, 8.0), torch.arange(2100))
    assert torch.equal(ours, theirs)
    assert torch.equal(ours[:, 256], ours[:, 257])  # one bias for two keys: what no slope says


@pytest.mark.parametrize("name", AVAILABLE)
def test_one_key_is_its_value_whatever_its_size(name):
    sequences = Sequences((2, 1, 7, 5), [1])
    sequences.q[0][:] *= 1e15
    sequences.v[0][:] = torch.tensor([1e30, -1e30, 1e-42, 0.0, -0.0, 1.0, -1.0])
    sequences.scatter(0)
    out = sequences.attend(NativeKernels(1, name), sequences.wholes(), None)
    assert torch.equal(out, sequences.v[0].expand(1, 2, 7))


@pytest.mark.parametrize("name", AVAILABLE)
def test_scores_far_apart_leave_the_largest_alone(name):
    sequences = Sequences((1, 1, 16, 4), [9])
    sequences.q[0][:] = 1e10
    sequences.k[0][:] = -1e10
    sequences.k[0][6] = 1e10
    sequences.scatter(0)
    out = sequences.attend(NativeKernels(1, name), sequences.wholes(), None)
    assert torch.equal(out[6:], sequences.v[0][6].expand(3, 1, 16))


@pytest.mark.parametrize("name", AVAILABLE)
def test_a_key_that_is_not_a_number_shows(name):
    sequences = Sequences((4, 2, 24, 4), [30])
    sequences.k[0][17, 0, 3] = float("nan")
    sequences.scatter(0)
    out = sequences.attend(NativeKernels(2, name), sequences.wholes(), None)
    assert out[17:, :2].isnan().all()
    assert out[:17].isfinite().all()
    assert out[:, 2:].isfinite().all()
