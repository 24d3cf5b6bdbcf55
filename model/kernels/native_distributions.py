"""
What the native kernels find in rows of logits or log-probabilities: sums, ranks, the most likely,
and the token drawn. csrc/selection.cpp, csrc/sampling.cpp.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from model.kernels.arguments import floats, ids
from model.kernels.interface import Draw
from model.kernels.tape import Tape

_P, _L = ctypes.c_void_p, ctypes.c_int64
SIGNATURES: dict[str, tuple[type | None, tuple[type, ...]]] = {
    "log_sum_exp": (None, (_P, _P, _P, _P, _L, _L)),
    "entropy": (None, (_P, _P, _P, _L, _L)),
    "ranks": (None, (_P, _P, _P, _P, _P, _P, _L, _L)),
    "top": (None, (_P, _P, _P, _P, _L, _L, _L)),
    "choose": (None, (_P, _P, _P, _P, _P, _P, _L, _L)),
}


class NativeDistributions:
    """A part of NativeKernels, which opens the library."""

    _library: ctypes.CDLL | Tape
    _context: int

    def log_sum_exp(self, logits: Tensor) -> Tensor:
        return self._log_sum_exp(logits.contiguous(), None)

    def log_softmax(self, logits: Tensor) -> Tensor:
        logits = logits.contiguous()
        out = torch.empty_like(logits)
        self._log_sum_exp(logits, out)
        return out

    def _log_sum_exp(self, logits: Tensor, logprobs: Tensor | None) -> Tensor:
        sums = torch.empty(len(logits), dtype=torch.float64)
        out = None if logprobs is None else logprobs.data_ptr()
        self._library.tiedlm_log_sum_exp(
            self._context, floats(logits), sums.data_ptr(), out, *logits.shape
        )
        return sums

    def entropy(self, logits: Tensor) -> Tensor:
        logits = logits.contiguous()
        out = torch.empty(len(logits), dtype=torch.float64)
        self._library.tiedlm_entropy(self._context, floats(logits), out.data_ptr(), *logits.shape)
        return out

    def ranks(
        self, logits: Tensor, rows: Tensor, tokens: Tensor, sums: Tensor | None = None
    ) -> Tensor:
        (num_rows, vocab_size), out = logits.shape, torch.empty_like(tokens)
        if not len(tokens):
            return out
        assert 0 <= int(rows.min()) <= int(rows.max()) < num_rows
        assert 0 <= int(tokens.min()) <= int(tokens.max()) < vocab_size
        self._library.tiedlm_ranks(
            self._context,
            floats(logits),
            _sums(sums, logits),
            ids(rows),
            ids(tokens),
            out.data_ptr(),
            len(tokens),
            vocab_size,
        )
        return out

    def top(self, logits: Tensor, count: int, sums: Tensor | None = None) -> Tensor:
        num_rows, vocab_size = logits.shape
        assert 1 <= count <= vocab_size
        out = torch.empty(num_rows, count, dtype=torch.int64)
        self._library.tiedlm_top(
            self._context,
            floats(logits),
            _sums(sums, logits),
            out.data_ptr(),
            num_rows,
            vocab_size,
            count,
        )
        return out

    def choose(
        self,
        logits: Tensor,
        draws: Sequence[Draw],
        sums: Tensor | None = None,
        has_processed: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        assert len(draws) == len(logits)
        if sums is None:
            sums = torch.full((len(draws),), torch.nan, dtype=torch.float64)
        numbers = torch.tensor(draws, dtype=torch.float64)
        tokens = torch.empty(len(draws), dtype=torch.int64)
        shown = torch.empty_like(logits) if has_processed else None
        self._library.tiedlm_choose(
            self._context,
            floats(logits),
            _sums(sums, logits),
            numbers.data_ptr(),
            tokens.data_ptr(),
            None if shown is None else shown.data_ptr(),
            *logits.shape,
        )
        return tokens, shown


def _sums(x: Tensor | None, logits: Tensor) -> int | None:
    if x is None:
        return None
    assert x.dtype == torch.float64
    assert x.shape == logits.shape[:1]
    assert x.is_contiguous()
    return x.data_ptr()
