"""How large the key-value cache is: what a flag says if it fits, else a share of what is free."""

from __future__ import annotations

import math

from model.kv_pool import PAGE_SIZE
from server.lifecycle import CannotLoad
from server.settings import Settings

SHARE = 0.25  # of the available memory, unless a flag says otherwise
# Bytes that stay free beside the cache: for a step's activations and logits, and for answers.
RESERVE = 256 * 2**20


def choose_num_pages(
    settings: Settings, *, context: int, bytes_per_token: int, available: int
) -> int:
    """
    `available`: bytes, once the weights are loaded. CannotLoad where a flag asks for more than is
    free: memory of the cache is taken only as it is used, so nothing else would say so before the
    process is killed.
    """
    page_bytes = bytes_per_token * PAGE_SIZE
    if settings.kv_cache_tokens is not None:
        asked = f"--kv-cache-tokens {settings.kv_cache_tokens}"
        num_pages = math.ceil(settings.kv_cache_tokens / PAGE_SIZE)
    elif settings.kv_cache_memory is not None:
        asked = f"--kv-cache-memory {settings.kv_cache_memory}"
        num_pages = settings.kv_cache_memory // page_bytes
    else:
        whole = settings.max_batch * math.ceil(context / PAGE_SIZE)
        return max(1, min(whole, int(SHARE * available) // page_bytes))
    if num_pages == 0:
        raise CannotLoad(f"{asked} bytes is less than a page: {PAGE_SIZE} tokens, {page_bytes}")
    if num_pages * page_bytes > available - RESERVE:
        raise CannotLoad(
            f"{asked} is {num_pages * PAGE_SIZE} tokens x {bytes_per_token} bytes ="
            f" {num_pages * page_bytes} bytes, but {max(0, available - RESERVE)} are free:"
            f" {available} available with the weights loaded, less {RESERVE} for a step's work"
        )
    return num_pages
