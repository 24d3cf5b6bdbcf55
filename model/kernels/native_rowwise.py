"""What the native kernels do to each row by itself: norms, sums, rotation, picking columns."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping

from torch import Tensor

from model.kernels.arguments import BRIEF_ROWS, Rows, floats, ids
from model.kernels.interface import Pairs
from model.kernels.tape import Tape

PAIRS: Mapping[Pairs, int] = {"halves": 0, "neighbours": 1}  # jobs.hpp: Pairs

_P, _I, _L, _F = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_float
SIGNATURES: dict[str, tuple[type | None, tuple[type, ...]]] = {
    "normalize": (None, (_P, _I, _P, _P, _L, _P, _P, _F, _P, Rows, _L)),
    "add": (None, (_P, _P, _P, _F, Rows)),
    "clamp": (None, (_P, _F, _P, Rows)),
    "rotate": (None, (_P, _I, _P, _P, _P, Rows, _L, _L, _L)),
    "angles": (None, (_P, _P, _P, _F, _P, _P, Rows, _L)),
    "is_finite": (_I, (_P, _P, _L)),
    "columns": (None, (_P, _P, _P, Rows, _L, _L, _L, _L, _L)),
    "write": (None, (_P, _P, _P, _P, _P, _P, Rows, _L, _L, _L)),
}


class NativeRowwise:
    """A part of NativeKernels, which opens the library."""

    _library: ctypes.CDLL | Tape
    _locked: ctypes.CDLL
    _context: int
    _new: Callable[..., Tensor]  # shape -> what a kernel of a step writes to

    def write(self, keys: Tensor, values: Tensor, slots: Tensor, k: Tensor, v: Tensor) -> None:
        k, v = k.contiguous(), v.contiguous()
        num_kv_heads, page_size, head_dim = values.shape[1:]
        assert k.shape == v.shape == (len(slots), num_kv_heads, head_dim)
        assert keys.shape == (len(values), num_kv_heads, head_dim, page_size)
        self._library.tiedlm_write(
            self._context,
            floats(k),
            floats(v),
            ids(slots),
            floats(keys),
            floats(values),
            len(slots),
            num_kv_heads,
            head_dim,
            page_size,
        )

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float, onto: Tensor | None = None) -> Tensor:
        assert weight.shape == x.shape[-1:]
        return self._normalize(False, x, weight, None, eps, onto)

    def layer_norm(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        eps: float,
        onto: Tensor | None = None,
    ) -> Tensor:
        assert weight.shape == x.shape[-weight.dim() :]
        assert bias is None or bias.shape == x.shape[-1:]
        return self._normalize(True, x, weight, bias, eps, onto)

    def _normalize(
        self,
        has_mean: bool,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        eps: float,
        onto: Tensor | None,
    ) -> Tensor:
        x, out, width = x.contiguous(), self._new(*x.shape), x.shape[-1]
        assert onto is None or onto.shape == x.shape
        self._library.tiedlm_normalize(
            self._context,
            has_mean,
            floats(x),
            floats(weight),
            weight.numel() // width,
            None if bias is None else floats(bias),
            None if onto is None else floats(onto),
            eps,
            out.data_ptr(),
            x.numel() // width,
            width,
        )
        return out

    def add(self, x: Tensor, onto: Tensor | None, by: float = 1.0) -> Tensor:
        """In place."""
        assert onto is None or onto.shape == x.shape
        other = None if onto is None else floats(onto)
        self._library.tiedlm_add(self._context, floats(x), other, by, x.numel())
        return x

    def clamp(self, limit: float, x: Tensor) -> Tensor:
        """In place."""
        self._library.tiedlm_clamp(self._context, limit, floats(x), x.numel())
        return x

    def columns(self, x: Tensor, first: int, width: int, step: int = 0, count: int = 1) -> Tensor:
        num_rows, stride = x.shape
        assert first >= 0
        assert first + (count - 1) * step + width <= stride
        out = self._new(num_rows, count * width)
        self._library.tiedlm_columns(
            self._context,
            floats(x),
            out.data_ptr(),
            num_rows,
            stride,
            first,
            width,
            step,
            count,
        )
        return out

    def angles(
        self, positions: Tensor, frequencies: Tensor, scale: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        num_tokens, half = len(positions), len(frequencies)
        cosines, sines = (self._new(num_tokens, 1, half) for _ in range(2))
        self._library.tiedlm_angles(
            self._context,
            ids(positions),
            floats(frequencies),
            scale,
            cosines.data_ptr(),
            sines.data_ptr(),
            num_tokens,
            half,
        )
        return cosines, sines

    def is_finite(self, x: Tensor) -> bool:
        library = self._locked if len(x) <= BRIEF_ROWS else self._library
        return bool(library.tiedlm_is_finite(self._context, floats(x), x.numel()))

    def rotate(self, cosines: Tensor, sines: Tensor, pairs: Pairs, x: Tensor) -> Tensor:
        """In place."""
        (num_tokens, num_heads, head_dim), half = x.shape, cosines.shape[-1]
        assert 2 * half <= head_dim
        assert cosines.shape == sines.shape == (num_tokens, 1, half)
        self._library.tiedlm_rotate(
            self._context,
            PAIRS[pairs],
            floats(cosines),
            floats(sines),
            floats(x),
            num_tokens,
            num_heads,
            head_dim,
            half,
        )
        return x
