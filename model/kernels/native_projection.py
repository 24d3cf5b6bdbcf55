"""The tied projection answered block by block, natively: csrc/projection.cpp."""

from __future__ import annotations

import ctypes
from functools import partial

import torch
from torch import Tensor

from model.kernels.arguments import floats, ids
from model.kernels.interface import Output, Projected, Wanted
from model.kernels.matrices import KIND_NUMBERS, MATRICES, codes
from model.kernels.parts import by_parts
from model.kernels.tape import Tape
from weights.quant import QuantTensor

_P, _I, _L, _F = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_float
SIGNATURES: dict[str, tuple[type | None, tuple[type, ...]]] = {
    "project": (
        None,
        (_P, _P, _P, _I, _P, _L, _L, _L, _F, _F, _P, _L, _P, _P, _L, _P, _P, _P, _P),
    ),
}


MAX_ROWS = 1024  # at a time: for 262,144 tokens 16 MB are then held of the largest of each 64


class NativeProjection:
    """A part of NativeKernels, which opens the library."""

    _library: ctypes.CDLL | Tape
    _context: int

    def project(self, hidden: Tensor, output: Output, wanted: Wanted) -> Projected:
        return by_parts(partial(self._project, output), hidden, wanted, MAX_ROWS)

    def _project(self, output: Output, hidden: Tensor, wanted: Wanted) -> Projected:
        hidden = hidden.contiguous()
        (num_rows, width), (vocab_size, columns) = hidden.shape, output.table.shape
        assert columns == width
        assert 0 <= wanted.top <= vocab_size
        told, asked = _room_for(num_rows, wanted), None
        if wanted.ids is not None and wanted.ids.numel():
            asked = wanted.ids.contiguous()
            assert len(asked) == num_rows
            assert 0 <= int(asked.min()) <= int(asked.max()) < vocab_size
        self._library.tiedlm_project(
            self._context,
            floats(hidden),
            *_table(output.table),
            num_rows,
            width,
            vocab_size,
            output.scale,
            output.cap or 0.0,
            None if asked is None else ids(asked),
            0 if asked is None else asked.shape[1],
            _address(told.id_logits),
            _address(told.ranks),
            wanted.top,
            _address(told.top_ids),
            _address(told.top_logits),
            _address(told.sums),
            _address(told.entropies),
        )
        return told


def _room_for(num_rows: int, wanted: Wanted) -> Projected:
    assert wanted.sums or (wanted.top <= 1 and wanted.ids is None and not wanted.entropies)
    tops = (num_rows, wanted.top)
    return Projected(
        sums=torch.empty(num_rows, dtype=torch.float64) if wanted.sums else None,
        entropies=torch.empty(num_rows, dtype=torch.float64) if wanted.entropies else None,
        id_logits=None if wanted.ids is None else torch.empty(wanted.ids.shape),
        ranks=None if wanted.ids is None else torch.empty(wanted.ids.shape, dtype=torch.int64),
        top_ids=torch.empty(tops, dtype=torch.int64),
        top_logits=torch.empty(tops),
    )


def _table(table: Tensor | QuantTensor) -> tuple[int, int, object]:
    """Address, kind of float, kind of codes."""
    if isinstance(table, QuantTensor):
        return codes(table), 0, KIND_NUMBERS[table.kind]
    assert table.is_contiguous()
    return table.data_ptr(), MATRICES[table.dtype], None


def _address(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()
