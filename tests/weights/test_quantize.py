"""Rounding to codes: near, nowhere worse than the plain way, and no slip at the ends."""

import numpy as np
import pytest
import torch
from gguf import quants

from weights.checkpoint import CheckpointError
from weights.quant import KINDS, TILE, dequantize
from weights.quantize import quantize

NAMES = ("Q4_0", "Q8_0")


def squared_error(values, weight):
    return float((values - weight).square().mean())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(1, 1), (5, 40), (37, 96), (16, 577)])
def test_a_value_is_moved_by_little_more_than_half_a_step(name, shape):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = dequantize(quantize(weight, KINDS[name]))
    step = weight.abs().max() / (8 if name == "Q4_0" else 127)
    # With four bits the furthest value may be cut to 0.72 of itself.
    assert (found - weight).abs().max() <= (2.4 if name == "Q4_0" else 0.51) * step


@pytest.mark.parametrize("name", NAMES)
def test_it_errs_less_than_the_plain_way(name):
    weight = torch.randn(256, 512, generator=torch.Generator().manual_seed(1)) * 0.04
    plain = getattr(quants, name)
    theirs = torch.from_numpy(plain.dequantize(plain.quantize(weight.numpy())))
    ours = dequantize(quantize(weight, KINDS[name]))
    bound = 0.93 if name == "Q4_0" else 1.001
    assert squared_error(ours, weight) < bound * squared_error(theirs, weight)


@pytest.mark.parametrize("name", NAMES)
def test_what_codes_can_say_is_kept_exactly(name):
    kind = KINDS[name]
    chance = np.random.default_rng(2)
    codes = chance.integers(1, 2**kind.bits, (TILE, 4, 32)).astype(np.float32) - kind.zero
    codes[..., 0] = -kind.zero if name == "Q4_0" else 127
    weight = torch.from_numpy((codes * np.float32(0.03125)).reshape(TILE, 128))
    assert torch.equal(dequantize(quantize(weight, kind)), weight)


@pytest.mark.parametrize("name", NAMES)
def test_zeros_and_the_smallest_values_are_kept_or_become_zero(name):
    weight = torch.zeros(20, 64)
    weight[3, 5], weight[4, 40] = 1e-42, -1e-30
    found = dequantize(quantize(weight, KINDS[name]))
    assert found.abs().max() < 1e-6
    assert (found[:3] == 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_value_beyond_what_a_scale_can_reach_is_refused(name):
    with pytest.raises(CheckpointError, match="too large"):
        quantize(torch.full((2, 32), 1e9), KINDS[name])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_halves_are_rounded_as_the_floats_that_they_are(name, dtype):
    weight = torch.randn(33, 64).to(dtype)
    assert torch.equal(
        quantize(weight, KINDS[name]).data, quantize(weight.float(), KINDS[name]).data
    )
