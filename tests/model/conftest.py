"""What the tests of the kernels share."""

import pytest
import torch

from model.kernels import NativeKernels
from tests.model.instruction_sets import AVAILABLE


@pytest.fixture
def poisoned():
    """`torch.empty` is then full of NaN: an element that is not written shows."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(params=AVAILABLE)
def kernels(request):
    """Of each instruction set that this processor has."""
    return NativeKernels(2, request.param)
