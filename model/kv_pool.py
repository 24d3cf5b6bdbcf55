"""
The paged cache's tensors, no policy. Which request holds which page is
server/engine/pages.py's.

P pages of `page_size` tokens, L layers, K key-value heads, D head width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from weights.checkpoint import ModelConfig

PAGE_SIZE = 16  # tokens


def num_bytes_per_token(config: ModelConfig) -> int:
    """Keys and values of all layers, float32."""
    return 2 * config.num_layers * config.num_kv_heads * config.head_dim * 4


class KVPool:
    def __init__(self, config: ModelConfig, num_pages: int, page_size: int = PAGE_SIZE) -> None:
        """
        Zeros, not garbage: a masked key still multiplies its value by 0, and 0 * NaN is NaN.
        numpy's zeros are untouched memory, resident once written; torch's are written at once.
        """
        L, K, D = config.num_layers, config.num_kv_heads, config.head_dim
        shapes = (L, num_pages, K, D, page_size), (L, num_pages, K, page_size, D)
        self.keys, self.values = (torch.from_numpy(np.zeros(each, np.float32)) for each in shapes)
        self.num_pages, self.page_size = num_pages, page_size
        self._last_hidden: Tensor | None = None  # (P,C), as wide as the first that is kept

    @property
    def num_bytes(self) -> int:
        return 2 * self.keys.numel() * self.keys.element_size()

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
