"""
The model's arithmetic: native code where it was built, plain torch where it was not.

It knows matrices, pages and rows, not layers or requests.
"""

from __future__ import annotations

import logging

import torch

from model.kernels.interface import (
    Draw,
    Gate,
    InputBits,
    Kernels,
    Output,
    Pairs,
    Projected,
    Spans,
    Wanted,
    logprobs_of,
)
from model.kernels.native import NativeKernels
from model.kernels.reference import TorchKernels

__all__ = [
    "Draw",
    "Gate",
    "InputBits",
    "Kernels",
    "NativeKernels",
    "Output",
    "Pairs",
    "Projected",
    "Spans",
    "TorchKernels",
    "Wanted",
    "choose",
    "logprobs_of",
]

log = logging.getLogger(__name__)


def choose(threads: int | None = None) -> Kernels:
    """
    The best this machine has. threads: None is torch's own choice, one a physical core.

    Beside native kernels torch is left one thread, if `threads` is given: its others would spin
    against ours for the little that is left to it, and divide its sums by their number.
    """
    kernels = _native(threads or torch.get_num_threads())
    if threads is not None:
        torch.set_num_threads(threads if kernels is None else 1)
    return kernels or TorchKernels()


def _native(threads: int) -> NativeKernels | None:
    try:
        return NativeKernels(threads)
    except OSError as error:
        log.warning(
            "the native kernels cannot be used (%s): torch computes instead, more slowly, and the "
            "last digits of log-probabilities depend on what else is in the batch",
            error,
        )
        return None
