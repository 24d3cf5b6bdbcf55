"""Norms, sums, rotation, columns, cache writes: native against the reference, and in company."""

import pytest
import torch

from model.kernels import NativeKernels, TorchKernels
from model.rope import angles
from tests.model.instruction_sets import AVAILABLE

pytestmark = pytest.mark.usefixtures("poisoned")

ROUNDING = 2.0**-24  # of float32, relative
TORCH = TorchKernels()
WIDTHS = [1, 5, 16, 33, 72, 576, 640]


def exact_norm(x, weight, bias, eps, has_mean):
    """In float64, and how large the terms are that it is a sum of."""
    far = x.double() - (x.double().mean(-1, keepdim=True) if has_mean else 0.0)
    by = (far.square().mean(-1, keepdim=True) + eps).rsqrt() * weight.double()
    shift = 0.0 if bias is None else bias.double()
    sizes = (x.double().abs() + has_mean * x.double().abs().mean(-1, keepdim=True)) * by.abs()
    return far * by + shift, sizes + (0.0 if bias is None else bias.abs())


def is_near(out, exact, sizes, width):
    """Sums of `width` terms in 16 lanes, then a handful of roundings."""
    return bool(((out.double() - exact).abs() <= (width / 16 + 16) * ROUNDING * sizes).all())


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_norms_are_float64s_within_roundings(kernels, width, scale):
    torch.manual_seed(width)
    x = torch.randn(70, width) * scale
    weight, bias, onto = torch.randn(width), torch.randn(width), torch.randn(70, width)
    for each in (kernels, TORCH):
        exact, sizes = exact_norm(x, weight, None, 1e-5, has_mean=False)
        assert is_near(each.rms_norm(x, weight, 1e-5), exact, sizes, width)
        out = each.rms_norm(x, weight, 1e-5, onto)
        assert is_near(out, exact + onto, sizes + onto.abs(), width)
    if width == 1:
        return  # nothing is left but the error of the mean
    for shift in (None, bias):
        exact, sizes = exact_norm(x, weight, shift, 1e-5, has_mean=True)
        for each in (kernels, TORCH):
            assert is_near(each.layer_norm(x, weight, shift, 1e-5), exact, sizes, width)
            out = each.layer_norm(x, weight, shift, 1e-5, onto)
            assert is_near(out, exact + onto, sizes + onto.abs(), width)


def test_a_norm_of_heads_has_weights_of_each_head(kernels):
    x, weight = torch.randn(9, 3, 20), torch.randn(3, 20)
    out = kernels.layer_norm(x, weight, None, 1e-5)
    assert torch.allclose(out, TORCH.layer_norm(x, weight, None, 1e-5), atol=1e-5)
    for head in range(3):
        alone = kernels.layer_norm(x[:, head].contiguous(), weight[head], None, 1e-5)
        assert torch.equal(alone, out[:, head])


def test_norms_hold_at_the_ends_of_the_range(kernels):
    """Equal elements, whose sum is exact here, have no distance from their mean."""
    x = torch.ones(4, 40) * torch.tensor([[0.0], [2.0**-99], [2.0**50], [3.0]])
    x[3, 7] = float("nan")
    weight, bias = torch.ones(40), torch.full((40,), 0.5)
    out = kernels.layer_norm(x, weight, bias, 1e-5)
    assert torch.equal(out[:3], torch.full((3, 40), 0.5))
    assert out[3].isnan().all()
    out = kernels.rms_norm(x, weight, 1e-5)
    assert torch.equal(out[0], torch.zeros(40))
    assert torch.allclose(out[1:3], TORCH.rms_norm(x, weight, 1e-5)[1:3], rtol=1e-6)
    assert out[3].isnan().all()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("name", AVAILABLE)
def test_a_row_of_a_norm_has_the_same_bits_in_any_company(name, threads, width):
    crowded, alone = NativeKernels(threads, name), NativeKernels(1, name)
    x, onto = torch.randn(900, width), torch.randn(900, width)
    weight, bias = torch.randn(width), torch.randn(width)
    rms = crowded.rms_norm(x, weight, 1e-5, onto)
    layer = crowded.layer_norm(x, weight, bias, 1e-5, onto)
    for row in (0, 1, 450, 899):
        one = slice(row, row + 1)
        assert torch.equal(alone.rms_norm(x[one], weight, 1e-5, onto[one]), rms[one])
        assert torch.equal(alone.layer_norm(x[one], weight, bias, 1e-5, onto[one]), layer[one])


def test_instruction_sets_with_fused_multiply_add_agree_to_the_last_bit_on_norms():
    x, weight, bias = torch.randn(7, 203), torch.randn(203), torch.randn(203)
    fused = [NativeKernels(1, name) for name in AVAILABLE if name != "portable"]
    assert fused
    for each in fused:
        assert torch.equal(each.rms_norm(x, weight, 1e-5), fused[0].rms_norm(x, weight, 1e-5))
        out = each.layer_norm(x, weight, bias, 1e-5)
        assert torch.equal(out, fused[0].layer_norm(x, weight, bias, 1e-5))


@pytest.mark.parametrize("scale", [1.0, 1.2])
@pytest.mark.parametrize("half", [1, 3, 32])
def test_angles_are_float64s_to_a_rounding_far_into_a_text(kernels, half, scale):
    positions, frequencies = torch.tensor([0, 1, 7, 8191, 131_071, 10**6]), torch.rand(half)
    radians = (positions.float()[:, None, None] * frequencies).double()
    for each in (kernels, TORCH):
        cosines, sines = each.angles(positions, frequencies, scale)
        assert torch.allclose(cosines.double(), radians.cos() * scale, rtol=0, atol=2e-7)
        assert torch.allclose(sines.double(), radians.sin() * scale, rtol=0, atol=2e-7)
    for at in range(len(positions)):
        alone = kernels.angles(positions[at : at + 1], frequencies, scale)
        whole = kernels.angles(positions, frequencies, scale)
        assert all(torch.equal(one[0], all_[at]) for one, all_ in zip(alone, whole, strict=True))


@pytest.mark.parametrize("size", [1, 15, 40, 10_000])
def test_one_element_that_is_not_finite_is_found(kernels, size):
    x = torch.full((size,), 3.4e38)
    for each in (kernels, TORCH):
        assert each.is_finite(x)
        for bad in ("inf", "-inf", "nan"):
            for at in (0, size // 2, size - 1):
                spoilt = x.clone()
                spoilt[at] = float(bad)
                assert not each.is_finite(spoilt)


@pytest.mark.parametrize("pairs", ["halves", "neighbours"])
@pytest.mark.parametrize(("head_dim", "rotated"), [(2, 2), (24, 24), (24, 12), (64, 64), (80, 20)])
def test_rotation_is_the_references_to_the_last_bit(kernels, head_dim, rotated, pairs):
    torch.manual_seed(head_dim)
    x = torch.randn(300, 9, head_dim)
    turned = angles(torch.randint(0, 9000, (300,)), torch.rand(rotated // 2))
    expected = TORCH.rotate(*turned, pairs, x.clone())
    assert torch.equal(kernels.rotate(*turned, pairs, x.clone()), expected)
    assert not torch.equal(expected, x)
    assert torch.equal(expected[..., rotated:], x[..., rotated:])


@pytest.mark.parametrize("size", [1, 15, 16, 33, 70_001])
def test_sums_and_limits_are_the_references_to_the_last_bit(kernels, size):
    x, onto = torch.randn(2, size), torch.randn(2, size)
    x[0, 0], onto[1, 0] = float("nan"), float("inf")
    for by, other in ((1.0, onto), (0.22, onto), (0.22, None)):
        expected = TORCH.add(x.clone(), other, by)
        assert torch.equal(kernels.add(x.clone(), other, by).nan_to_num(7), expected.nan_to_num(7))
    expected = TORCH.clamp(0.3, x.clone())
    assert torch.equal(kernels.clamp(0.3, x.clone()).nan_to_num(7), expected.nan_to_num(7))
    assert expected[0, 0].isnan()


@pytest.mark.parametrize("num_rows", [1, 2, 300])
def test_columns_are_the_references(kernels, num_rows):
    x = torch.randn(num_rows, 60)
    for chosen in ((0, 60), (7, 13), (0, 4, 12, 5), (4, 2, 12, 5), (59, 1)):
        assert torch.equal(kernels.columns(x, *chosen), TORCH.columns(x, *chosen))


def test_the_worked_example_of_columns(kernels):
    row = torch.tensor([[0.0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]])
    assert kernels.columns(row, 0, 4, 8, 2).tolist() == [[0, 1, 2, 3, 8, 9, 10, 11]]
    with pytest.raises(AssertionError):
        kernels.columns(row, 9, 4, 8, 2)


@pytest.mark.parametrize("num_tokens", [1, 3, 120])
def test_writing_touches_its_slots_and_no_other(kernels, num_tokens):
    shapes = ((40, 3, 7, 5), (40, 3, 5, 7)) * 2
    slots = torch.randperm(200)[:num_tokens]
    k, v = torch.randn(num_tokens, 3, 7), torch.randn(num_tokens, 3, 7)
    caches = [torch.full(shape, 9.0) for shape in shapes]
    kernels.write(*caches[:2], slots, k, v)
    TORCH.write(*caches[2:], slots, k, v)
    assert torch.equal(caches[0], caches[2])
    assert torch.equal(caches[1], caches[3])
    assert int((caches[0] != 9.0).sum()) == k.numel()


def test_no_tokens_are_no_work(kernels):
    nothing = torch.empty(0, 8)
    assert kernels.rms_norm(nothing, torch.ones(8), 1e-5).shape == (0, 8)
    assert kernels.columns(nothing, 0, 4).shape == (0, 4)
