"""Calls of the native library written down, and made again: see tape.py."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from model.kernels.tape import Call, NotRecordable, Tape


class NativeReplay:
    """A part of NativeKernels, which opens the library."""

    _library: ctypes.CDLL | Tape
    _context: int
    _new: Callable[..., Tensor]

    @contextmanager
    def write_on(self, tape: Tape) -> Iterator[None]:
        """Meanwhile calls are noted, not made: what they are to write stays as it is."""
        library = self._library
        self._library, self._new = tape, tape.new
        try:
            yield
        finally:
            self._library, self._new = library, torch.empty

    def played(self, name: str) -> int:
        """-> Call.function for a function's name."""
        function: int | None = self._library.tiedlm_played(name.encode())
        if function is None:
            raise NotRecordable(f"csrc/program.cpp does not list {name}")
        return function

    def play(
        self,
        calls: ctypes.Array[Call],
        num_tokens: int,
        arena: int,
        bound: ctypes.Array[ctypes.c_int64],
    ) -> None:
        """arena: an address that every ARENA argument is told from; bound: the BOUND ones."""
        self._library.tiedlm_play(self._context, calls, len(calls), num_tokens, arena, bound)
