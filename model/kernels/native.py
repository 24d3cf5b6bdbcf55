"""
The kernels of csrc/, called through ctypes, which lets other Python threads run meanwhile.

Their bits depend on neither the batch nor the number of threads. What a pointer must point to is
checked here: the native side believes what it is told.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Mapping
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import torch
from torch import Tensor

from model.attention import Scoring
from model.kernels import native_distributions, native_rowwise
from model.kernels.arguments import PerStep, Rows, floats, ids
from model.kernels.interface import Gate, InputBits, Spans
from model.kernels.native_distributions import NativeDistributions
from model.kernels.native_replay import NativeReplay
from model.kernels.native_rowwise import NativeRowwise
from weights.quant import KINDS, TILE, QuantTensor

MATRICES: Mapping[torch.dtype, int] = {torch.float32: 0, torch.bfloat16: 1}  # jobs.hpp: Matrix
GATES: Mapping[Gate, int] = {"silu": 0, "gelu_tanh": 1, "gelu": 2, "relu": 3}  # jobs.hpp: Gate
KIND_NUMBERS = {  # quantised.hpp: CodeKind
    kind: (ctypes.c_int32 * 5)(
        kind.bits, kind.zero, kind.has_offset, kind.group, kind.groups_per_scale
    )
    for kind in KINDS.values()
}
INSTRUCTION_SETS = ("avx512", "avx2", "portable")  # best first

_P, _I, _L, _F = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_float
SIGNATURES: dict[str, tuple[type | None, tuple[type, ...]]] = {
    "open": (_P, (ctypes.c_char_p, _I)),
    "close": (None, (_P,)),
    "name": (ctypes.c_char_p, (_P,)),
    "linear": (None, (_P, _P, _P, _I, _P, _P, Rows, _L, _L)),
    "quantised_linear": (None, (_P, _P, _P, _P, _P, _P, Rows, _L, _L, _I)),
    "quantised_lookup": (None, (_P, _P, _P, _P, _L, _L, _L)),
    "attend": (None, (_P, _P, _P, _P, _P, _P, PerStep, _P, _L, _L, _L, _L, _P, _I, _F, _L, _F)),
    "gate": (None, (_P, _I, _P, _P, Rows)),
    "cap": (None, (_P, _F, _P, _L)),
    "played": (_P, (ctypes.c_char_p,)),
    "play": (None, (_P, _P, _L, _L, _P, _P)),
}
ALL_SIGNATURES = SIGNATURES | native_rowwise.SIGNATURES | native_distributions.SIGNATURES


def _load() -> ctypes.CDLL:
    """OSError where the library was not built, or not for this system."""
    paths = [Path(__file__).with_name(f"_native{suffix}") for suffix in EXTENSION_SUFFIXES]
    built = [path for path in paths if path.is_file()]
    if not built:
        raise FileNotFoundError("they were not built: the installation found no C++17 compiler")
    library = ctypes.CDLL(str(built[0]))
    for name, (result, arguments) in ALL_SIGNATURES.items():
        function = getattr(library, f"tiedlm_{name}")
        function.restype, function.argtypes = result, arguments
    return library


class NativeKernels(NativeReplay, NativeRowwise, NativeDistributions):
    signatures = ALL_SIGNATURES

    def __init__(self, threads: int, instruction_set: str = "") -> None:
        """instruction_set: one of INSTRUCTION_SETS, "" for the best. OSError: not to be had."""
        library = _load()
        context = library.tiedlm_open(instruction_set.encode(), threads)
        if context is None:
            raise OSError(f"this processor has no {instruction_set}")
        self._library, self._context, self._new = library, context, torch.empty
        self.name: str = library.tiedlm_name(context).decode()
        # Not at exit, when another thread may be inside; the process ends its threads anyway.
        weakref.finalize(self, library.tiedlm_close, context).atexit = False

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        x = x.contiguous()
        (num_rows, width), num_outputs = x.shape, weight.shape[0]
        assert weight.shape[1] == width
        assert weight.is_contiguous()
        out = self._new(num_rows, num_outputs)
        self._library.tiedlm_linear(
            self._context,
            floats(x),
            weight.data_ptr(),
            MATRICES[weight.dtype],
            None if bias is None else floats(bias),
            out.data_ptr(),
            num_rows,
            width,
            num_outputs,
        )
        return out

    def quantised(
        self, x: Tensor, weight: QuantTensor, bias: Tensor | None = None, bits: InputBits = 16
    ) -> Tensor:
        x = x.contiguous()
        (num_rows, width), num_outputs = x.shape, weight.shape[0]
        assert weight.shape[1] == width
        out = self._new(num_rows, num_outputs)
        self._library.tiedlm_quantised_linear(
            self._context,
            floats(x),
            _codes(weight),
            KIND_NUMBERS[weight.kind],
            None if bias is None else floats(bias),
            out.data_ptr(),
            num_rows,
            width,
            num_outputs,
            bits == 16,
        )
        return out

    def look_up(self, table: QuantTensor, rows: Tensor) -> Tensor:
        num_rows, width = table.shape
        out = torch.empty(len(rows), width)
        if not len(rows):
            return out
        assert 0 <= int(rows.min()) <= int(rows.max()) < num_rows
        self._library.tiedlm_quantised_lookup(
            _codes(table),
            KIND_NUMBERS[table.kind],
            ids(rows),
            out.data_ptr(),
            len(rows),
            width,
            num_rows,
        )
        return out

    def attend(
        self,
        q: Tensor,
        keys: Tensor,
        values: Tensor,
        spans: Spans,
        scoring: Scoring,
    ) -> Tensor:
        q, slopes = q.contiguous(), scoring.slopes
        out = self._new(*q.shape)
        num_kv_heads, page_size, head_dim = values.shape[1:]
        assert keys.shape == (len(values), num_kv_heads, head_dim, page_size)
        assert q.shape[2] == head_dim
        assert q.shape[1] % num_kv_heads == 0
        assert slopes is None or slopes.shape == q.shape[1:2]
        self._library.tiedlm_attend(
            self._context,
            floats(q),
            floats(keys),
            floats(values),
            out.data_ptr(),
            spans.rows.data_ptr(),
            len(spans.rows),
            spans.pages.data_ptr(),
            q.shape[1],
            num_kv_heads,
            head_dim,
            page_size,
            None if slopes is None else floats(slopes),
            scoring.is_coarse,
            scoring.scale,
            scoring.window or 0,
            scoring.cap or 0.0,
        )
        return out

    def gate(self, kind: Gate, x: Tensor, up: Tensor | None) -> Tensor:
        """In place."""
        assert up is None or up.shape == x.shape
        other = None if up is None else floats(up)
        self._library.tiedlm_gate(self._context, GATES[kind], floats(x), other, x.numel())
        return x

    def cap(self, limit: float, x: Tensor) -> Tensor:
        """In place."""
        self._library.tiedlm_cap(self._context, limit, floats(x), x.numel())
        return x


def _codes(x: QuantTensor) -> int:
    assert x.data.dtype == torch.uint8
    assert x.data.is_contiguous()
    assert x.data.shape == (-(-x.shape[0] // TILE), x.layout.tile_bytes)
    return x.data.data_ptr()
