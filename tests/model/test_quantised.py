"""Products with packed matrices: native against exact sums, the reference, and themselves."""

import subprocess
import sys

import pytest
import torch

from model.embedding import TiedEmbedding
from model.kernels import NativeKernels, TorchKernels, choose
from model.kernels.reference_quantised import rounded
from tests.end_to_end.running import ROOT
from tests.model.instruction_sets import AVAILABLE
from weights.quant import KINDS, QuantTensor, dequantize, empty, layout_of

pytestmark = pytest.mark.usefixtures("poisoned")

ROUNDING = 2.0**-24
ALL = list(KINDS.values())
BITS = (8, 16)
# Of outputs and inputs: less than a tile and a block, whole ones, one more, several of each.
SHAPES = [(1, 1), (5, 31), (16, 32), (17, 33), (53, 300), (200, 96), (48, 576)]


def random_matrix(kind, num_outputs, width, seed=0):
    """Any codes, any multiples, scales of about 0.01, and padding that would show."""
    chance = torch.Generator().manual_seed(seed)
    tensor, at = empty(kind, (num_outputs, width)), layout_of(kind, width)
    tensor.data.random_(0, 256, generator=chance)
    halves = tensor.data[:, : at.sub_scales].view(torch.float16)
    halves.copy_(torch.randn(halves.shape, generator=chance) * 0.01)
    return tensor


def is_right(out, x, weight, bits, bias=None):
    """
    The integer sum of a group is exact; making it a float rounds it, then come a product and one or
    two sums a group, each rounding at most everything before it.
    """
    inputs, matrix = rounded(x, bits).double(), dequantize(weight).double()
    exact = inputs @ matrix.T + (0.0 if bias is None else bias.double())
    num_groups = layout_of(weight.kind, weight.shape[1]).num_groups
    # A code's weight is the difference of two larger numbers where there is an offset.
    size = inputs.abs() @ largest_weights(weight).double().T
    size = size + (0.0 if bias is None else bias.abs())
    return bool(((out.double() - exact).abs() <= (2 * num_groups + 6) * ROUNDING * size).all())


def largest_weights(weight):
    """Of each group: what |scale| * code and |offset| can add up to."""
    low, high = (with_codes(weight, byte) for byte in (0, 255))
    return 2 * torch.maximum(dequantize(low).abs(), dequantize(high).abs()) + 1e-30


def with_codes(weight, byte):
    data = weight.data.clone()
    data[:, weight.layout.codes :] = byte
    return QuantTensor(weight.kind, weight.shape, data)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
@pytest.mark.parametrize(("num_outputs", "width"), SHAPES)
def test_a_product_is_exact_but_for_its_few_roundings(kernels, kind, num_outputs, width, bits):
    weight, bias = random_matrix(kind, num_outputs, width), torch.randn(num_outputs)
    for num_rows in (0, 1, 2, 9, 65, 130):
        x = torch.randn(num_rows, width)
        native = kernels.quantised(x, weight, bias, bits)
        assert native.shape == (num_rows, num_outputs)
        assert is_right(native, x, weight, bits, bias)
        assert is_right(kernels.quantised(x, weight, None, bits), x, weight, bits)
    assert is_right(TorchKernels().quantised(x, weight, bias, bits), x, weight, bits, bias)


@pytest.mark.parametrize("bits", BITS)
def test_rounded_inputs_are_within_half_a_step_and_exact_where_they_are_steps(bits):
    x = torch.randn(40, 100)
    step = x.abs().max() / (127 if bits == 8 else 32512)
    assert ((rounded(x, bits) - x).abs() <= 0.5001 * step).all()
    whole = torch.randint(-127, 128, (40, 96)).float()
    whole[:, ::32] = 127.0
    assert torch.equal(rounded(whole, bits), whole)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_all_instruction_sets_agree_to_the_last_bit(kind, bits):
    """Those without a fused multiply-add, too: it is emulated, once a group."""
    weight = random_matrix(kind, 53, 300)
    x, bias = torch.randn(70, 300) * torch.logspace(-20, 20, 70)[:, None], torch.randn(53)
    outs = [NativeKernels(2, name).quantised(x, weight, bias, bits) for name in AVAILABLE]
    assert len(outs) > 1
    assert all(torch.equal(out, outs[0]) for out in outs)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_matrices_that_share_a_job_give_what_each_gives_alone(kernels, kind, bits):
    sizes, width = (203, 16, 53), 96
    layers = [
        (random_matrix(kind, size, width, seed), torch.randn(size) if seed else None)
        for seed, size in enumerate(sizes)
    ]
    for num_rows in (0, 1, 3, 64, 150):
        x = torch.randn(num_rows, width)
        alone = [kernels.quantised(x, weight, bias, bits) for weight, bias in layers]
        for count in (1, 2, 3):
            outs = kernels.quantised_linears(x, layers[:count], bits)
            assert len(outs) == count
            assert all(map(torch.equal, outs, alone))


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
@pytest.mark.parametrize("name", AVAILABLE)
def test_a_row_has_the_same_bits_in_any_company(name, kind, threads, bits):
    weight, bias = random_matrix(kind, 203, 96), torch.randn(203)
    crowded, alone = NativeKernels(threads, name), NativeKernels(1, name)
    x = torch.randn(150, 96)
    whole = crowded.quantised(x, weight, bias, bits)
    for count in (1, 2, 3, 8, 9, 63, 64, 65, 128, 129):
        few = crowded.quantised(x[7 : 7 + count], weight, bias, bits)
        assert torch.equal(few, whole[7 : 7 + count])
    for row in (0, 63, 64, 149):
        assert torch.equal(alone.quantised(x[row : row + 1], weight, bias, bits)[0], whole[row])
    for tile in (0, 5, 12):
        part = slice(16 * tile, 16 * tile + 16)
        one = QuantTensor(kind, (len(bias[part]), 96), weight.data[tile : tile + 1])
        assert torch.equal(alone.quantised(x, one, bias[part], bits), whole[:, part])


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_products_hold_at_the_ends_of_the_range(kernels, kind, bits):
    weight = random_matrix(kind, 20, 64)
    weight.data[:, weight.layout.codes :] = 255
    for scale in (1e34, 1e-28):  # a group's sum before its scale is to be finite: 32 * 255 * 1e34
        x = torch.full((3, 64), scale)
        x[1, ::2] *= -1
        assert is_right(kernels.quantised(x, weight, None, bits), x, weight, bits)
    assert kernels.quantised(torch.full((1, 64), 1e-31), weight, None, bits).abs().max() == 0
    assert kernels.quantised(torch.zeros(2, 64), weight, None, bits).abs().max() == 0
    x = torch.randn(5, 64)
    x[1, 3], x[2, 40], x[3, 63] = float("nan"), float("inf"), float("-inf")
    out, plain = (k.quantised(x, weight, None, bits) for k in (kernels, TorchKernels()))
    assert out[1:4].isnan().all()
    assert plain[1:4].isnan().all()
    assert out[[0, 4]].isfinite().all()


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_a_looked_up_row_is_what_the_table_stands_for(kernels, kind):
    table = random_matrix(kind, 53, 300)
    rows = torch.tensor([52, 0, 17, 17, 31])
    expected = dequantize(table)[rows]
    assert torch.equal(kernels.look_up(table, rows), expected)
    assert torch.equal(TorchKernels().look_up(table, rows), expected)
    assert kernels.look_up(table, rows[:0]).shape == (0, 300)


@pytest.mark.parametrize("row", [-1, 53, 2**40])
def test_a_row_that_the_table_has_not_is_not_looked_up(kernels, row):
    table = random_matrix(ALL[0], 53, 300)
    for place in (0, 2, 99):
        rows = torch.zeros(100, dtype=torch.int64)
        rows[place] = row
        with pytest.raises(AssertionError, match=f"row {row} of 53"):
            kernels.look_up(table, rows[: place + 1])


@pytest.mark.parametrize("kernels", [choose(), TorchKernels()], ids=lambda kernels: kernels.name)
@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_lookup_and_projection_read_one_packed_storage(kind, kernels):
    table = random_matrix(kind, 37, 64)
    embedding = TiedEmbedding(table, kernels, scale=2.0)
    assert embedding.num_bytes == table.data.numel()
    hidden, token = torch.eye(64), torch.tensor([35])
    before = embedding.lookup(token), embedding.logits(hidden)[:, 35]
    assert torch.allclose(before[0][0], before[1] * 2.0, rtol=1e-4, atol=1e-6)
    table.data[35 // 16] = random_matrix(kind, 16, 64, seed=1).data[0]  # behind its back
    after = embedding.lookup(token), embedding.logits(hidden)[:, 35]
    assert torch.allclose(after[0][0], after[1] * 2.0, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(after[0], before[0], rtol=1e-2)


SCRIPT = """
import sys, torch
from model.assemble import Parts
from model.kernels import choose
from model.large_blocks import give_back_large_blocks
from tests.model.test_memory import status

give_back_large_blocks()
V, C = 262_144, 640
precision = sys.argv[1]
stored = torch.zeros(V, C, dtype=torch.bfloat16).normal_()
kernels = choose(2)
small = Parts({"e.weight": stored[:64]}, precision, kernels).embedding("e")
small.logits(small.lookup(torch.tensor([1])))
before = status("self", "RssAnon")
embedding = Parts({"e.weight": stored}, precision, kernels).embedding("e")
with torch.inference_mode():
    for token in (0, 5, V - 1):
        logits = embedding.logits(embedding.lookup(torch.tensor([token])))
        del logits
print(status("self", "RssAnon") - before, embedding.num_bytes)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("precision", "bytes_a_weight"),
    [("auto", 0), ("bfloat16", 0), ("float32", 4), ("int8", 8.5 / 8), ("int4", 8.5 / 8)],
)
def test_a_table_of_262144_rows_is_resident_once_in_every_precision(precision, bytes_a_weight):
    """
    Where it is kept as stored, nothing is added at all. In int4, too, the table has 8 bits.

    Counted is the process's own memory: pages of libraries come and go as the machine likes, and
    what malloc holds back of the small table, it would fill with the large one.
    """
    told = subprocess.run(
        [sys.executable, "-c", SCRIPT, precision],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    grown, held = map(int, told.stdout.split())
    assert held == 262_144 * 640 * (bytes_a_weight or 2)
    assert abs(grown - 262_144 * 640 * bytes_a_weight) < 0.1 * held  # a second copy would add 1.0
