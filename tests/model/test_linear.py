import pytest
import torch

from model.linear import BLOCK_BYTES, Linear, project


@pytest.mark.parametrize("num_rows", [1, 7, 64])
@pytest.mark.parametrize("num_outputs", [1, 16, 1003, 3 * BLOCK_BYTES // (4 * 96) + 5])
def test_bfloat16_weights_are_widened_not_rounded_to(num_rows, num_outputs):
    torch.manual_seed(0)
    x, weight = torch.randn(num_rows, 96), torch.randn(num_outputs, 96).bfloat16()
    exact = (x.double() @ weight.double().T).float()
    assert torch.allclose(project(x, weight), exact, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bias_is_added_in_both_precisions(dtype):
    torch.manual_seed(0)
    x, weight, bias = torch.randn(3, 8), torch.randn(5, 8).to(dtype), torch.randn(5)
    expected = x @ weight.float().T + bias
    assert torch.allclose(Linear(weight, bias)(x), expected, atol=1e-5)
