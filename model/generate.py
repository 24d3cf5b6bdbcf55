"""
The naive loop: one sequence, no cache, no batch, the whole text again for every token. Slow, short
and the oracle of the rest.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model.attention import Scoring, attend
from model.transformer import Transformer


class NoMemory:
    """transformer.Memory of one whole sequence, forgotten when the pass is over."""

    def attend(
        self,
        layer: int,  # noqa: ARG002  every layer is forgotten alike
        q: Tensor,
        k: Tensor,
        v: Tensor,
        scoring: Scoring,
    ) -> Tensor:
        """q (N,H,D), k and v (N,K,D), N positions from 0 on -> (N,H,D)."""
        positions = torch.arange(len(q))[None]
        return attend(q[None], k[None], v[None], positions, scoring)[0]


@torch.inference_mode()
def logits(transformer: Transformer, tokens: list[int]) -> Tensor:
    """-> (N,V) float32: row i is what the model expects after tokens[: i + 1]."""
    positions = torch.arange(len(tokens))
    hidden = transformer.forward(torch.tensor(tokens), positions, NoMemory())
    return transformer.embedding.logits(hidden)


def generate(transformer: Transformer, prompt: list[int], max_tokens: int) -> list[int]:
    """Greedy; ties to the lowest id."""
    tokens = list(prompt)
    for _ in range(max_tokens):
        tokens.append(
            int(transformer.kernels.log_softmax(logits(transformer, tokens)[-1:]).argmax())
        )
    return tokens[len(prompt) :]
