"""
Weights in pages of 2 MB. A step reads all of them, and with pages of 4 KB looking up where they are
takes as long as reading: on a virtual machine memory then comes at half its speed.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping
from pathlib import Path

SETTINGS = Path("/sys/kernel/mm/transparent_hugepage")
NEIGHBOURS = 64 << 10  # bytes between two tensors, and they are one range of memory
AT_A_TIME = 16  # huge pages: each call waits for every processor, 5 ms
MADV_HUGEPAGE, MADV_COLLAPSE = 14, 25  # Linux's mman-common.h; the second since version 6.1


def use_huge_pages(storages: Mapping[int, int]) -> int:
    """
    storages: address -> bytes of memory that stays -> how many of them lie in huge pages now. 0
    where the system has none or they are switched off, or does this in its own time (before Linux
    6.1), or where the memory is a file's.

    What is there is moved, at some 2 GB/s; others may read it meanwhile.
    """
    size = _page_bytes()
    madvise = getattr(ctypes.CDLL(None), "madvise", None)
    if not size or madvise is None:
        return 0
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    moved = 0
    for first, last in _ranges(storages):
        end = last // size * size
        for start in range(-(-first // size) * size, end, AT_A_TIME * size):
            piece = start, min(AT_A_TIME * size, end - start)
            if not madvise(*piece, MADV_HUGEPAGE) and not madvise(*piece, MADV_COLLAPSE):
                moved += piece[1]
    return moved


def _page_bytes() -> int:
    try:
        if "[never]" in (SETTINGS / "enabled").read_text():
            return 0
        return int((SETTINGS / "hpage_pmd_size").read_text())
    except OSError:
        return 0


def _ranges(storages: Mapping[int, int]) -> Iterator[tuple[int, int]]:
    """What lies behind one another, as one: most matrices are smaller than a huge page."""
    first = last = 0
    for address, num_bytes in sorted(storages.items()):
        if address > last + NEIGHBOURS:
            if last:
                yield first, last
            first = address
        last = max(last, address + num_bytes)
    if last:
        yield first, last
