"""
The kernels of csrc/, called through ctypes, which lets other Python threads run meanwhile.

Their bits depend on neither the batch nor the number of threads. What a pointer must point to is
checked here: the native side believes what it is told.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Mapping, Sequence
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import torch
from torch import Tensor

from model.attention import Scoring
from model.kernels import native_distributions, native_projection, native_rowwise
from model.kernels.arguments import BRIEF_ROWS, PerStep, Rows, floats, ids
from model.kernels.interface import Gate, InputBits, Spans
from model.kernels.matrices import KIND_NUMBERS, MATRICES, codes
from model.kernels.native_distributions import NativeDistributions
from model.kernels.native_projection import NativeProjection
from model.kernels.native_replay import NativeReplay
from model.kernels.native_rowwise import NativeRowwise
from weights.quant import QuantTensor

GATES: Mapping[Gate, int] = {"silu": 0, "gelu_tanh": 1, "gelu": 2, "relu": 3}  # jobs.hpp: Gate
Layer = tuple[Tensor | QuantTensor, Tensor | None]  # weight (O,C), bias (O,)
INSTRUCTION_SETS = ("avx512", "avx2", "neon", "portable")  # best first

_P, _I, _L, _F = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_float
MAX_PRODUCTS = 3  # context.hpp
_PRODUCT = (_P, _P, _P, _L)  # entries.hpp: TIEDLM_PRODUCT
SIGNATURES: dict[str, tuple[type | None, tuple[type, ...]]] = {
    "open": (_P, (ctypes.c_char_p, _I)),
    "close": (None, (_P,)),
    "name": (ctypes.c_char_p, (_P,)),
    "linear": (None, (_P, _P, _I, Rows, _L, *MAX_PRODUCTS * _PRODUCT)),
    "quantised_linear": (None, (_P, _P, _P, _I, Rows, _L, *MAX_PRODUCTS * _PRODUCT)),
    "quantised_lookup": (_L, (_P, _P, _P, _P, _L, _L, _L)),
    "attend": (None, (_P, _P, _P, _P, _P, _P, PerStep, _P, _L, _L, _L, _L, _P, _I, _F, _L, _F)),
    "gate": (None, (_P, _I, _P, _P, Rows)),
    "cap": (None, (_P, _F, _P, _L)),
    "played": (_P, (ctypes.c_char_p,)),
    "play": (None, (_P, _P, _L, _L, _P, _P)),
}
ALL_SIGNATURES = (
    SIGNATURES
    | native_rowwise.SIGNATURES
    | native_distributions.SIGNATURES
    | native_projection.SIGNATURES
)


def _load(kind: type[ctypes.CDLL]) -> ctypes.CDLL:
    """OSError where the library was not built, or not for this system."""
    paths = [Path(__file__).with_name(f"_native{suffix}") for suffix in EXTENSION_SUFFIXES]
    built = [path for path in paths if path.is_file()]
    if not built:
        raise FileNotFoundError("they were not built: the installation found no C++17 compiler")
    library = kind(str(built[0]))
    for name, (result, arguments) in ALL_SIGNATURES.items():
        function = getattr(library, f"tiedlm_{name}")
        function.restype, function.argtypes = result, arguments
    return library


class NativeKernels(NativeReplay, NativeRowwise, NativeDistributions, NativeProjection):
    signatures = ALL_SIGNATURES

    def __init__(self, threads: int, instruction_set: str = "") -> None:
        """instruction_set: one of INSTRUCTION_SETS, "" for the best. OSError: not to be had."""
        library = _load(ctypes.CDLL)
        context = library.tiedlm_open(instruction_set.encode(), threads)
        if context is None:
            raise OSError(f"this processor has no {instruction_set}")
        self._library, self._context, self._new = library, context, torch.empty
        self._locked = _load(ctypes.PyDLL)  # whose calls keep the interpreter's lock
        self.name: str = library.tiedlm_name(context).decode()
        # Not at exit, when another thread may be inside; the process ends its threads anyway.
        weakref.finalize(self, library.tiedlm_close, context).atexit = False

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return self.linears(x, [(weight, bias)])[0]

    def linears(
        self, x: Tensor, layers: Sequence[tuple[Tensor, Tensor | None]]
    ) -> tuple[Tensor, ...]:
        x, dtype = x.contiguous(), layers[0][0].dtype
        assert all(weight.dtype == dtype for weight, _ in layers)
        assert all(weight.shape[1] == x.shape[1] for weight, _ in layers)
        assert all(weight.is_contiguous() for weight, _ in layers)
        outs = self._outs(x, layers)
        self._library.tiedlm_linear(
            self._context,
            floats(x),
            MATRICES[dtype],
            *x.shape,
            *_products([weight.data_ptr() for weight, _ in layers], layers, outs),
        )
        return outs

    def quantised(
        self, x: Tensor, weight: QuantTensor, bias: Tensor | None = None, bits: InputBits = 16
    ) -> Tensor:
        return self.quantised_linears(x, [(weight, bias)], bits)[0]

    def quantised_linears(
        self,
        x: Tensor,
        layers: Sequence[tuple[QuantTensor, Tensor | None]],
        bits: InputBits = 16,
    ) -> tuple[Tensor, ...]:
        x, kind = x.contiguous(), layers[0][0].kind
        assert all(weight.kind == kind for weight, _ in layers)
        assert all(weight.shape[1] == x.shape[1] for weight, _ in layers)
        outs = self._outs(x, layers)
        self._library.tiedlm_quantised_linear(
            self._context,
            floats(x),
            KIND_NUMBERS[kind],
            bits == 16,
            *x.shape,
            *_products([codes(weight) for weight, _ in layers], layers, outs),
        )
        return outs

    def _outs(self, x: Tensor, layers: Sequence[Layer]) -> tuple[Tensor, ...]:
        return tuple(self._new(len(x), weight.shape[0]) for weight, _ in layers)

    def look_up(self, table: QuantTensor, rows: Tensor) -> Tensor:
        num_rows, width = table.shape
        out = torch.empty(len(rows), width)
        if not len(rows):
            return out
        library = self._locked if len(rows) <= BRIEF_ROWS else self._library
        num_found = library.tiedlm_quantised_lookup(
            codes(table),
            KIND_NUMBERS[table.kind],
            ids(rows),
            out.data_ptr(),
            len(rows),
            width,
            num_rows,
        )
        assert num_found == len(rows), f"row {int(rows[num_found])} of {num_rows}"
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


def _products(
    addresses: Sequence[int], layers: Sequence[Layer], outs: Sequence[Tensor]
) -> list[int | None]:
    """The arguments that csrc/entries.hpp names TIEDLM_PRODUCT, of each layer."""
    assert 1 <= len(layers) <= MAX_PRODUCTS
    found: list[int | None] = []
    for address, (weight, bias), out in zip(addresses, layers, outs, strict=True):
        found += (address, None if bias is None else floats(bias), out.data_ptr(), weight.shape[0])
    return found + [None, None, None, 0] * (MAX_PRODUCTS - len(layers))
