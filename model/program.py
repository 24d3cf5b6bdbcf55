"""
One step's calls, recorded once from the Python model and replayed by the native side.

The Python model stays the only definition: `record` runs it while its kernels write down what they
are asked for, and a Program makes the same calls for any number of tokens, so that between two
operators there is no Python. What goes into the blocks, and what becomes of their result, is still
the runner's.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from model.kernels import NativeKernels
from model.kernels.tape import ARENA, BOUND, LINE, Call, Note, NotRecordable, Tape, encode, place
from model.kv_pool import KVPool
from model.paged import Batch, PagedMemory, plan
from model.step import Row
from model.transformer import Transformer

RESULT = 6  # the place of its address in what a step brings: see _inputs

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Recording:
    notes: list[Note]
    row_bytes: list[int]  # of each buffer, a token
    result: int  # the buffer that the last call writes
    width: int  # of the result, in floats


class Program:
    """Transformer.run over the pages of one pool, for any number of tokens."""

    def __init__(self, recording: Recording, kernels: NativeKernels) -> None:
        notes = [_bind(note, recording.result, RESULT) for note in recording.notes]
        starts, self._row_bytes = place(notes, recording.row_bytes)
        functions = {name: kernels.played(name) for name in {note.function for note in notes}}
        self._calls: ctypes.Array[Call] = encode(notes, starts, functions)
        self._width, self._kernels = recording.width, kernels
        self._arena = torch.empty(0, dtype=torch.uint8)

    def run(self, x: Tensor, batch: Batch) -> Tensor:
        """x (N,C) from Transformer.enter -> (N,C), what Transformer.run would be."""
        out = torch.empty(len(x), self._width)
        assert x.is_contiguous()
        addresses = [each.data_ptr() for each in _inputs(x, batch)]
        bound = [*addresses, len(batch.spans.rows), out.data_ptr()]
        arena = self._arena_for(len(x))
        self._kernels.play(self._calls, len(x), arena, (ctypes.c_int64 * len(bound))(*bound))
        return out

    def _arena_for(self, num_tokens: int) -> int:
        """-> the address of enough memory for everything in use at one time."""
        size = num_tokens * self._row_bytes + LINE
        if size > len(self._arena):
            self._arena = torch.empty(size, dtype=torch.uint8)
        return -(-self._arena.data_ptr() // LINE) * LINE


def record(transformer: Transformer, pool: KVPool) -> Program | None:
    """None, with a warning, where a part of the model is not in native functions."""
    kernels = transformer.kernels
    if not isinstance(kernels, NativeKernels):
        return None
    try:
        one, two = (_write_down(transformer, pool, kernels, count) for count in (1, 2))
        if one != two:
            raise NotRecordable("its calls depend on the number of tokens")
        return Program(one, kernels)
    except NotRecordable as error:
        log.warning("every step runs in Python, more slowly: %s", error)
        return None


@torch.inference_mode()
def _write_down(
    transformer: Transformer, pool: KVPool, kernels: NativeKernels, num_tokens: int
) -> Recording:
    batch = plan([Row([0] * num_tokens, 0, [0])], pool.page_size)
    x = transformer.enter(batch.tokens, batch.positions)
    constants = {**transformer.storages(), pool.storage.data_ptr(): pool.storage.nbytes}
    tape = Tape(kernels.signatures, constants, _inputs(x, batch), num_tokens)
    with kernels.write_on(tape):
        out = transformer.run(x, batch.positions, PagedMemory(pool, batch, kernels))
    return Recording(tape.notes, tape.row_bytes, tape.buffer_of(out), out.shape[1])


def _inputs(x: Tensor, batch: Batch) -> Sequence[Tensor]:
    """What each step brings; behind it, in a call's BOUND arguments, the number of rows, RESULT."""
    return x, batch.positions, batch.slots, batch.spans.rows, batch.spans.pages


def _bind(note: Note, buffer: int, place: int) -> Note:
    """A call that uses `buffer` uses what the step brings in that place."""
    arguments = [(BOUND, place) if each == (ARENA, buffer) else each for each in note.arguments]
    return replace(note, arguments=tuple(arguments))
