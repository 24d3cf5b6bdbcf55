"""
Calls of the native library, written down instead of made, and made later for any number of tokens.

A call's arguments are of four kinds: constants (sizes, weights, the cache), counts that are so many
a token, what a call before it wrote, and what each step brings. So far as a call depends on the
batch, it does by the last three, and csrc/program.cpp fills them in.
"""

from __future__ import annotations

import ctypes
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from model.kernels.arguments import PerStep, Rows

CONSTANT, ROWS, ARENA, BOUND = range(4)  # program.cpp: Kind
MAX_ARGUMENTS = 20
LINE = 64  # bytes; every buffer begins on a multiple of it

Argument = float | ctypes.Array[ctypes.c_int32] | None
Signatures = Mapping[str, tuple[type | None, tuple[type, ...]]]


class NotRecordable(Exception):
    """A call is given what no native function wrote, so that torch must have computed it."""


class Call(ctypes.Structure):
    """program.cpp: Call."""

    _fields_ = (
        ("function", ctypes.c_void_p),
        ("values", ctypes.c_int64 * MAX_ARGUMENTS),
        ("kinds", ctypes.c_uint8 * MAX_ARGUMENTS),
    )


@dataclass(frozen=True, slots=True)
class Note:
    """A call: its function's name, then kind and value of each argument."""

    function: str
    arguments: tuple[tuple[int, int], ...]


class Tape:
    """
    Stands in for the library while a step of `num_tokens` is written down.

    constants: address -> bytes of what stays where it is. inputs: what each step brings. Buffers
    are numbered as they are asked for, and live as long as the tape, so that an address means one.
    """

    def __init__(
        self,
        signatures: Signatures,
        constants: Mapping[int, int],
        inputs: Sequence[Tensor],
        num_tokens: int,
    ) -> None:
        self.notes: list[Note] = []
        self.row_bytes: list[int] = []  # of each buffer, a token
        self._signatures, self._num_tokens = signatures, num_tokens
        self._constants = sorted(constants.items())
        self._inputs = {tensor.data_ptr(): i for i, tensor in enumerate(inputs)}
        self._per_step = len(inputs)  # the place of the one number that a step brings
        self._buffers: dict[int, int] = {}
        self._kept: list[Tensor] = []

    def new(self, *shape: int) -> Tensor:
        buffer = torch.empty(shape)
        assert buffer.nbytes % self._num_tokens == 0
        self._buffers[buffer.data_ptr()] = len(self._kept)
        self._kept.append(buffer)
        self.row_bytes.append(buffer.nbytes // self._num_tokens)
        return buffer

    def buffer_of(self, tensor: Tensor) -> int:
        kind, index = self._pointer("the result", tensor.data_ptr())
        if kind != ARENA:
            raise NotRecordable("the result is not what a native function wrote")
        return index

    def __getattr__(self, name: str) -> Callable[..., None]:
        return partial(self._note, name.removeprefix("tiedlm_"))

    def _note(self, function: str, _context: int, *arguments: Argument) -> None:
        types = self._signatures[function][1][1:]
        kinds = [
            self._argument(function, of, argument)
            for of, argument in zip(types, arguments, strict=True)
        ]
        self.notes.append(Note(function, tuple(kinds)))

    def _argument(self, function: str, of: type, argument: Argument) -> tuple[int, int]:
        if isinstance(argument, ctypes.Array):
            return CONSTANT, ctypes.addressof(argument)
        if of is PerStep:
            return BOUND, self._per_step
        if of is ctypes.c_float:
            return CONSTANT, ctypes.c_uint32.from_buffer(ctypes.c_float(argument or 0.0)).value
        if of is ctypes.c_void_p and argument is not None:
            return self._pointer(function, int(argument))
        if of is Rows:
            assert argument is not None
            assert argument % self._num_tokens == 0
            return ROWS, int(argument) // self._num_tokens
        return CONSTANT, int(argument or 0)

    def _pointer(self, function: str, address: int) -> tuple[int, int]:
        if address in self._buffers:
            return ARENA, self._buffers[address]
        if address in self._inputs:
            return BOUND, self._inputs[address]
        at = bisect_right(self._constants, address, key=lambda each: each[0]) - 1
        if at >= 0 and address < sum(self._constants[at]):
            return CONSTANT, address
        raise NotRecordable(f"{function} is given what no native function wrote")


def encode(
    notes: Sequence[Note], starts: Sequence[int], functions: Mapping[str, int]
) -> ctypes.Array[Call]:
    """starts: see `place`. functions: name -> what Call.function is."""
    calls = (Call * len(notes))()
    for call, note in zip(calls, notes, strict=True):
        call.function = functions[note.function]
        for i, (kind, value) in enumerate(note.arguments):
            call.kinds[i], call.values[i] = kind, starts[value] if kind == ARENA else value
    return calls


def place(notes: Sequence[Note], row_bytes: Sequence[int]) -> tuple[list[int], int]:
    """
    Where each buffer begins, in bytes a token, so that what is in use at one time does not overlap;
    and how much that is in all.

    Three calls, a -> b, b -> c, c -> d, of equal buffers: a at 0, b behind it, c at 0 again.
    """
    last = {
        value: at
        for at, note in enumerate(notes)
        for kind, value in note.arguments
        if kind == ARENA
    }
    starts, total = [0] * len(row_bytes), 0
    used: dict[int, int] = {}  # buffer -> where it ends, of those in use
    for at, note in enumerate(notes):
        for kind, buffer in note.arguments:
            if kind == ARENA and buffer not in used:
                taken = [(starts[each], end) for each, end in used.items()]
                starts[buffer] = _gap(taken, row_bytes[buffer])
                used[buffer] = starts[buffer] + -(-row_bytes[buffer] // LINE) * LINE
                total = max(total, used[buffer])
        used = {buffer: end for buffer, end in used.items() if last[buffer] > at}
    return starts, total


def _gap(used: list[tuple[int, int]], size: int) -> int:
    """The first place where `size` bytes are free."""
    start = 0
    for first, end in sorted(used):
        if start + size <= first:
            return start
        start = max(start, end)
    return start
