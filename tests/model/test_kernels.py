"""Linear, gates and sums: native against float64, and against themselves in other company."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F

from model.kernels import NativeKernels, TorchKernels, choose, native
from tests.model.instruction_sets import AVAILABLE

pytestmark = pytest.mark.usefixtures("poisoned")

ROUNDING = 2.0**-24  # of float32, relative
MATRICES = [torch.float32, torch.bfloat16]


def is_right(out, x, weight, bias=None):
    """
    A sum of C products in 16 lanes rounds each term at most C/16 + 6 times; 2e-44 is for what
    underflows.
    """
    exact = x.double() @ weight.double().T + (0.0 if bias is None else bias.double())
    size = x.double().abs() @ weight.double().abs().T + (0.0 if bias is None else bias.abs())
    bound = (x.shape[1] / 16 + 6) * ROUNDING * size + 2e-44 * x.shape[1]
    return bool(((out.double() - exact).abs() <= bound).all())


@pytest.mark.parametrize("dtype", MATRICES)
@pytest.mark.parametrize("num_rows", [1, 2, 5, 6, 7, 23, 70, 300])
@pytest.mark.parametrize(("num_outputs", "width"), [(1, 1), (3, 16), (17, 33), (64, 72), (501, 50)])
def test_linear_is_exact_to_the_roundings_of_its_order(
    kernels, num_rows, num_outputs, width, dtype
):
    torch.manual_seed(num_rows)
    x, weight = torch.randn(num_rows, width), torch.randn(num_outputs, width).to(dtype)
    bias = torch.randn(num_outputs)
    assert is_right(kernels.linear(x, weight), x, weight)
    assert is_right(kernels.linear(x, weight, bias), x, weight, bias)
    assert is_right(TorchKernels().linear(x, weight, bias), x, weight, bias)


@pytest.mark.parametrize("dtype", MATRICES)
@pytest.mark.parametrize("scale", [1e30, 1e-30, 1e-42])
def test_linear_holds_at_the_ends_of_the_range(kernels, dtype, scale):
    torch.manual_seed(0)
    x, weight = torch.randn(7, 45) * scale, torch.randn(9, 45).to(dtype)
    assert is_right(kernels.linear(x, weight), x, weight)
    x[3, 2] = float("nan")
    assert kernels.linear(x, weight)[3].isnan().all()


@pytest.mark.parametrize("dtype", MATRICES)
def test_matrices_that_share_a_job_give_what_each_gives_alone(kernels, dtype):
    torch.manual_seed(0)
    layers = [
        (torch.randn(size, 100).to(dtype), torch.randn(size) if size > 9 else None)
        for size in (603, 5, 64)
    ]
    for num_rows in (0, 1, 7, 300):
        x = torch.randn(num_rows, 100)
        alone = [kernels.linear(x, weight, bias) for weight, bias in layers]
        for count in (1, 2, 3):
            outs = kernels.linears(x, layers[:count])
            assert len(outs) == count
            assert all(map(torch.equal, outs, alone))


@pytest.mark.parametrize("dtype", MATRICES)
@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize(("num_outputs", "width"), [(5, 7), (203, 64), (1200, 100)])
@pytest.mark.parametrize("name", AVAILABLE)
def test_a_row_of_linear_has_the_same_bits_in_any_company(name, num_outputs, width, threads, dtype):
    torch.manual_seed(width)
    x, weight = torch.randn(300, width), torch.randn(num_outputs, width).to(dtype)
    crowded, alone = NativeKernels(threads, name), NativeKernels(1, name)
    bias = torch.randn(num_outputs)
    whole = crowded.linear(x, weight, bias)
    for count in (*range(1, 71, 3), 299):
        assert torch.equal(crowded.linear(x[7 : 7 + count], weight, bias), whole[7 : 7 + count])
    for row in (0, 5, 6, 191, 192, 299):
        assert torch.equal(alone.linear(x[row : row + 1], weight, bias)[0], whole[row])
    for output in (0, num_outputs - 1):
        one = slice(output, output + 1)
        assert torch.equal(alone.linear(x, weight[one], bias[one])[:, 0], whole[:, output])


def test_strided_rows_and_outputs_of_a_slice_are_read_as_they_lie(kernels):
    x, weight = torch.randn(50, 4).T, torch.randn(9, 50)[2:7]
    assert torch.equal(kernels.linear(x, weight), kernels.linear(x.contiguous(), weight.clone()))


@pytest.mark.parametrize("width", [1, 15, 16, 80, 129, 2048])
def test_gates_are_torchs_and_their_bits_do_not_depend_on_the_place(kernels, width):
    torch.manual_seed(0)
    x, up = torch.randn(300, width) * 4, torch.randn(300, width)
    for kind in ("silu", "gelu", "gelu_tanh"):
        exact = {
            "silu": F.silu(x.double()),
            "gelu": F.gelu(x.double()),
            "gelu_tanh": F.gelu(x.double(), approximate="tanh"),
        }[kind]
        plain, gated = kernels.gate(kind, x.clone(), None), kernels.gate(kind, x.clone(), up)
        assert ((plain - exact).abs() <= 8 * ROUNDING * x.abs()).all()
        assert ((gated - exact * up).abs() <= 9 * ROUNDING * (x * up).abs()).all()
        for row in (0, 7, 299):
            one = slice(row, row + 1)
            assert torch.equal(kernels.gate(kind, x[one].clone(), None), plain[one])
            assert torch.equal(kernels.gate(kind, x[one].clone(), up[one]), gated[one])


def test_gates_hold_at_the_ends_of_the_range(kernels):
    x = torch.tensor([-1e30, -100.0, -0.0, 0.0, 1e-42, 100.0, 1e12, float("nan")])
    for kind in ("silu", "gelu", "gelu_tanh"):
        out = kernels.gate(kind, x.clone(), None)
        assert out[:4].abs().max() == 0
        assert torch.equal(out[5:7], x[5:7])
        assert out[7].isnan()


@pytest.mark.parametrize("vocab_size", [1, 15, 16, 1003, 49152])
def test_log_sum_exp_is_float64s_alone_and_in_company(kernels, vocab_size):
    torch.manual_seed(vocab_size)
    logits = torch.randn(9, vocab_size) * 10
    logits[1] += 1e6
    logits[2, vocab_size // 2 :] = float("-inf")
    logits[2, 0] = -50.0
    out = kernels.log_sum_exp(logits)
    assert torch.allclose(out, logits.double().logsumexp(-1), rtol=0, atol=1e-7)
    assert torch.allclose(TorchKernels().log_sum_exp(logits), out, rtol=0, atol=1e-7)
    for row in range(9):
        assert torch.equal(kernels.log_sum_exp(logits[row : row + 1])[0], out[row])


@pytest.mark.parametrize("vocab_size", [2, 15, 16, 1003, 49152])
def test_entropy_is_float64s_alone_and_in_company(kernels, vocab_size):
    torch.manual_seed(vocab_size)
    logprobs = (torch.randn(9, vocab_size) * 3).log_softmax(-1)
    logprobs[1], logprobs[1, 1] = float("-inf"), 0.0
    out = kernels.entropy(logprobs)
    assert torch.allclose(out, TorchKernels().entropy(logprobs), rtol=1e-7, atol=1e-9)
    assert out[1] == 0
    for row in range(9):
        assert torch.equal(kernels.entropy(logprobs[row : row + 1])[0], out[row])


def test_two_callers_of_one_pool_take_turns(kernels):
    x, weight = torch.randn(40, 64), torch.randn(900, 64)
    expected = kernels.linear(x, weight)
    with ThreadPoolExecutor(4) as callers:
        results = callers.map(lambda _: kernels.linear(x, weight), range(200))
        assert all(torch.equal(each, expected) for each in results)


def test_instruction_sets_with_fused_multiply_add_agree_to_the_last_bit():
    """So that a log-probability does not change when the server moves to another such machine."""
    x, weight = torch.randn(7, 203), torch.randn(33, 203)
    outs = [NativeKernels(1, name).linear(x, weight) for name in AVAILABLE if name != "portable"]
    assert outs
    assert all(torch.equal(out, outs[0]) for out in outs)


def test_without_the_library_torch_serves_and_one_warning_says_so(monkeypatch, caplog):
    monkeypatch.setattr(native, "EXTENSION_SUFFIXES", [])
    assert choose(torch.get_num_threads()).name == "torch"
    (record,) = caplog.records
    assert "no C++17 compiler" in record.message
    assert "depend on what else is in the batch" in record.message
    monkeypatch.undo()
    assert choose().name == AVAILABLE[0]


@pytest.mark.parametrize("limit", [0.5, 30.0, 50.0])
def test_cap_is_tanh_within_a_few_units_of_the_last_place(kernels, limit):
    """Also around 0.625 of the limit, where the polynomial hands over to the exponential."""
    x = torch.cat((torch.randn(4000) * limit, torch.linspace(0.62, 0.63, 501) * limit))
    x = torch.cat((x, x * 1e-3, torch.tensor([0.0, 1e30, -1e30, float("inf"), 1e-40])))
    exact = limit * torch.tanh(x.double() / limit)
    out = kernels.cap(limit, x.clone())
    assert torch.allclose(out.double(), exact, rtol=4e-7, atol=1e-40)
    assert torch.allclose(TorchKernels().cap(limit, x.clone()).double(), exact, rtol=4e-7)
    assert kernels.cap(limit, torch.tensor([float("nan")])).isnan()


def test_an_elements_cap_does_not_depend_on_its_place(kernels):
    x = torch.randn(3, 1003) * 40
    whole = kernels.cap(30.0, x.clone())
    for row in range(3):
        assert torch.equal(kernels.cap(30.0, x[row].clone()), whole[row])
    assert torch.equal(kernels.cap(30.0, x[0, 5:].clone()), whole[0, 5:])
