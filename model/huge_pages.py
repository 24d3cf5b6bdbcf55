"""
Weights in pages of 2 MB. A step reads all of them, and with pages of 4 KB looking up where they are
takes as long as reading: on a virtual machine memory then comes at half its speed. And memory that
is there before it is needed: handing out a page of 2 MB takes a millisecond.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

SETTINGS = Path("/sys/kernel/mm/transparent_hugepage")
NEIGHBOURS = 64 << 10  # bytes between two tensors, and they are one range of memory
AT_A_TIME = 16  # huge pages: each call waits for every processor, 5 ms
# Linux's mman-common.h; the second since version 5.14, the third since 6.1
MADV_HUGEPAGE, MADV_POPULATE_WRITE, MADV_COLLAPSE = 14, 23, 25


def use_huge_pages(storages: Mapping[int, int]) -> int:
    """
    storages: address -> bytes of memory that stays -> how many of them lie in huge pages now. 0
    where the system has none or they are switched off, or does this in its own time (before Linux
    6.1), or where the memory is a file's.

    What is there is moved, at some 2 GB/s; others may read it meanwhile.
    """
    size, madvise = _page_bytes(), _madvise()
    if not size or madvise is None:
        return 0
    moved = 0
    for first, last in _ranges(storages):
        end = last // size * size
        for start in range(-(-first // size) * size, end, AT_A_TIME * size):
            piece = start, min(AT_A_TIME * size, end - start)
            if not madvise(*piece, MADV_HUGEPAGE) and not madvise(*piece, MADV_COLLAPSE):
                moved += piece[1]
    return moved


def make_resident(ranges: Mapping[int, int]) -> None:
    """
    address -> bytes of memory that will be written, which then need not wait for it to be handed
    out. Its contents stay. No-op where the system cannot do that.
    """
    madvise = _madvise()
    if madvise is None:
        return
    for address, num_bytes in ranges.items():
        first = address // mmap.PAGESIZE * mmap.PAGESIZE
        madvise(first, address + num_bytes - first, MADV_POPULATE_WRITE)


def _madvise() -> Callable[[int, int, int], int] | None:
    madvise = getattr(ctypes.CDLL(None), "madvise", None)
    if madvise is not None:
        madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return madvise


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
