"""Memory that is free is given back to the system."""

import ctypes
from pathlib import Path

import pytest

from model.large_blocks import give_back_free_memory

LIBC = ctypes.CDLL(None)
LIBC.malloc.restype = ctypes.c_void_p
LIBC.malloc.argtypes = [ctypes.c_size_t]
LIBC.free.argtypes = [ctypes.c_void_p]


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not hasattr(LIBC, "malloc_trim"), reason="only glibc keeps such memory")
def test_many_small_blocks_are_given_back_though_one_behind_them_is_in_use():
    blocks = [LIBC.malloc(8000) for _ in range(8000)]
    for block in blocks:
        ctypes.memset(block, 1, 8000)
    for block in blocks[:-1]:
        LIBC.free(block)
    before = resident()
    give_back_free_memory()
    assert before - resident() > 50_000_000
    LIBC.free(blocks[-1])
