"""
The paged cache's tensors, no policy. Which request holds which page is
server/engine/pages.py's.

P pages of `page_size` tokens, L layers, K key-value heads, D head width.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd

import numpy as np
import torch
from torch import Tensor

from weights.checkpoint import ModelConfig

PAGE_SIZE = 16  # tokens
HUGE_PAGE = 2 << 20  # bytes; where they are larger, they are as much in step as before
FLOATS_A_LINE = 16


def num_bytes_per_token(config: ModelConfig) -> int:
    """Keys and values of all layers, float32."""
    return 2 * config.num_layers * config.num_kv_heads * config.head_dim * 4


def apart(size: int, count: int) -> int:
    """
    Floats from one of `count` regions of `size` floats to the next, so that they do not all come to
    the end of a huge page at the same page of the cache: a step would wait for all of them at once.

    A huge page has `count` parts, and the distance is so many of them that have no divisor in
    common with `count`: the regions then begin in each part of a huge page once.
    """
    huge, distance, parts = HUGE_PAGE // 4, 0, size * count // (HUGE_PAGE // 4)
    while distance < size or gcd(parts, count) > 1:
        parts += 1
        distance = parts * huge // count // FLOATS_A_LINE * FLOATS_A_LINE
    return distance


class KVPool:
    def __init__(self, config: ModelConfig, num_pages: int, page_size: int = PAGE_SIZE) -> None:
        """
        Zeros, not garbage: a masked key still multiplies its value by 0, and 0 * NaN is NaN.
        numpy's zeros are untouched memory, resident once written; torch's are written at once.
        """
        L, K, D = config.num_layers, config.num_kv_heads, config.head_dim
        size = num_pages * K * D * page_size
        step = apart(size, 2 * L)
        self.storage = torch.from_numpy(np.zeros((2 * L - 1) * step + size, np.float32))
        page, head = K * D * page_size, D * page_size  # floats
        self.keys = self.storage.as_strided(
            (L, num_pages, K, D, page_size), (2 * step, page, head, page_size, 1)
        )
        self.values = self.storage.as_strided(
            (L, num_pages, K, page_size, D), (2 * step, page, head, D, 1), step
        )
        self.num_pages, self.page_size = num_pages, page_size
        self._last_hidden: Tensor | None = None  # (P,C), as wide as the first that is kept

    @property
    def num_bytes(self) -> int:
        return 2 * self.keys.numel() * self.keys.element_size()

    def beginnings(self) -> dict[int, int]:
        """address -> bytes of the first page's keys and values in each layer."""
        size = 4 * self.keys[0, 0].numel()
        return {each.data_ptr(): size for cache in (self.keys, self.values) for each in cache}

    def copy(self, source: int, target: int, count: int) -> None:
        """The first `count` places of a page, in every layer."""
        self.keys[:, target, ..., :count] = self.keys[:, source, ..., :count]
        self.values[:, target, :, :count] = self.values[:, source, :, :count]

    def keep_hidden(self, pages: Tensor, hidden: Tensor) -> None:
        """pages (M,) that are full now, hidden (M,C) at their last tokens."""
        if self._last_hidden is None:
            shape = (self.num_pages, hidden.shape[1])
            self._last_hidden = torch.from_numpy(np.zeros(shape, np.float32))
        self._last_hidden[pages] = hidden

    def last_hidden(self, pages: Sequence[int]) -> Tensor:
        """(M,C) at the last tokens of full pages: what follows each is told from these."""
        assert self._last_hidden is not None
        return self._last_hidden[torch.tensor(pages)]

    def clear(self, pages: Tensor) -> None:
        """Make pages safe to hand on after a step that went wrong in them."""
        self.keys[:, pages] = 0.0
        self.values[:, pages] = 0.0
