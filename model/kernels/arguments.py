"""What native functions are given: the types that ctypes lacks, and pointers that are checked."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

# Of so few rows a call is over sooner than the interpreter's lock, given up meanwhile, is had back
# from the event loop.
BRIEF_ROWS = 32


class Rows(ctypes.c_int64):
    """A count that is so much a token: a recorded step is replayed with other numbers of them."""


class PerStep(ctypes.c_int64):
    """A number that the tokens do not tell: how many rows they are of."""


def floats(x: Tensor) -> int:
    assert x.dtype == torch.float32
    assert x.is_contiguous()
    return x.data_ptr()


def ids(x: Tensor) -> int:
    assert x.dtype == torch.int64
    assert x.is_contiguous()
    return x.data_ptr()
