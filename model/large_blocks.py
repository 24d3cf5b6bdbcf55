"""
Memory that is given back. The C library keeps freed blocks of tens of megabytes in its heap, where
smaller ones then lie between them: after a few passes over a long prompt the process had grown by
several times what it ever used at once.
"""

from __future__ import annotations

import ctypes

LARGE = 16 << 20  # bytes; a chunk of logits is larger, what a decoding step needs mostly smaller
M_MMAP_THRESHOLD = -3  # glibc's malloc.h


def give_back_large_blocks() -> None:
    """From now on. Where the C library is not glibc nothing changes."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGE)


def give_back_free_memory() -> None:
    """Once: what many small blocks, all free now, still hold. A tokenizer's file leaves 280 MB."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
