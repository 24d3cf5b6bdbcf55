"""
The tied matrix: one storage that is both the input lookup and, transposed, the output projection.

Press & Wolf 2017, "Using the Output Embedding to Improve Language Models"; Radford et al. 2018,
section 3.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from model.kernels import Kernels, Output, Projected, Wanted
from model.kernels.reference_projection import logits
from weights.quant import QuantTensor


@dataclass(frozen=True, slots=True)
class TiedEmbedding:
    table: Tensor | QuantTensor  # (V,C), a tensor float32 or bfloat16; the only copy there is
    kernels: Kernels
    scale: float = (
        1.0  # multiplies a looked-up row (Gemma: the root of the width), never the projection
    )

    logit_scale: float = 1.0
    logit_cap: float | None = None  # no logit leaves (-cap, cap)

    @property
    def vocab_size(self) -> int:
        return self.table.shape[0]

    @property
    def num_bytes(self) -> int:
        table = self.table.data if isinstance(self.table, QuantTensor) else self.table
        return table.numel() * table.element_size()

    def lookup(self, tokens: Tensor) -> Tensor:
        """tokens (N,) -> (N,C) float32."""
        if isinstance(self.table, QuantTensor):
            rows = self.kernels.look_up(self.table, tokens)
        else:
            rows = F.embedding(tokens, self.table).to(torch.float32)
        return rows if self.scale == 1.0 else rows * self.scale

    @property
    def output(self) -> Output:
        return Output(self.table, self.logit_scale, self.logit_cap)

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden (N,C) float32 -> (N,V) float32."""
        return logits(self.kernels, hidden, self.output)

    def project(self, hidden: Tensor, wanted: Wanted) -> Projected:
        """hidden (N,C) float32 -> what is wanted of its logits, which are never whole."""
        return self.kernels.project(hidden, self.output, wanted)
