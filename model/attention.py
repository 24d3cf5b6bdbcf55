"""
Grouped-query attention: the plain reference, and the batched form over cached pages that is tested
against it.

B rows, T new tokens a row, S cached tokens a row, H query heads, K key-value heads (H = G*K), D
head width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from model.alibi import coarse


@dataclass(frozen=True, slots=True)
class Scoring:
    """
    The score of a key: scale * q.k, bent by the cap, lessened by its distance.

    With slope 0.5 a key three places before its query loses 1.5 (ALiBi, Press et al. 2022). With
    cap 50 no score leaves (-50, 50): it is 50 * tanh(score / 50) (Gemma 2, section 2).
    """

    scale: float
    window: int | None = None  # keys a query sees, itself included
    cap: float | None = None
    slopes: Tensor | None = None  # (H,) float32
    is_coarse: bool = False  # alibi.coarse, before the scale, instead of distances; no window

    def __post_init__(self) -> None:
        assert not self.is_coarse or (self.slopes is not None and self.window is None)

    @property
    def is_plain(self) -> bool:
        return self.cap is None and self.slopes is None


def visible_keys(positions: Tensor, num_keys: int, window: int | None) -> Tensor:
    """
    positions (B,T) of queries -> (B,T,S) True where a query may look: at itself and before it,
    `window` keys at most.

    With window 3, the query at position 5 sees keys 3, 4 and 5.
    """
    keys = torch.arange(num_keys)
    visible = keys <= positions[:, :, None]
    return visible if window is None else visible & (keys > positions[:, :, None] - window)


def attend(q: Tensor, k: Tensor, v: Tensor, positions: Tensor, scoring: Scoring) -> Tensor:
    """
    The reference. q (B,T,H,D) at positions (B,T), k and v (B,S,K,D) from position 0 on ->
    (B,T,H,D).
    """
    B, T, H, D = q.shape
    S, K = k.shape[1:3]
    grouped = q.view(B, T, K, H // K, D)
    scores = torch.einsum("btkgd,bskd->bkgts", grouped, k)
    if scoring.slopes is not None and scoring.is_coarse:
        gains = coarse(scoring.slopes, torch.arange(S))[:, None]
        gains = gains - coarse(scoring.slopes, positions)[..., None]
        scores = scores + gains.view(B, K, H // K, T, S)
    scores = scores * scoring.scale
    if scoring.cap is not None:
        scores = scoring.cap * torch.tanh(scores / scoring.cap)
    if scoring.slopes is not None and not scoring.is_coarse:
        distances = positions[:, None, None, :, None] - torch.arange(S)
        scores = scores - scoring.slopes.view(1, K, H // K, 1, 1) * distances
    visible = visible_keys(positions, S, scoring.window)
    scores = scores.masked_fill(~visible[:, None, None], float("-inf"))
    out = torch.einsum("bkgts,bskd->btkgd", scores.softmax(-1), v)
    return out.reshape(B, T, H, D)


def attend_fused(q: Tensor, k: Tensor, v: Tensor, positions: Tensor, scoring: Scoring) -> Tensor:
    """
    The same by torch's fused kernel, which never holds the (T,S) scores of all heads at once, and
    knows neither caps nor slopes.

    A group's G query heads share one key head: they become G*T queries of it, so no key is repeated
    in memory.
    """
    B, T, H, D = q.shape
    K = k.shape[2]
    G = H // K
    visible = visible_keys(positions, k.shape[1], scoring.window)
    queries = q.view(B, T, K, G, D).permute(0, 2, 3, 1, 4).reshape(B, K, G * T, D)
    mask = visible[:, None, None].expand(B, 1, G, T, -1).reshape(B, 1, G * T, -1)
    out = F.scaled_dot_product_attention(
        queries, k.transpose(1, 2), v.transpose(1, 2), attn_mask=mask, scale=scoring.scale
    )
    return out.view(B, K, G, T, D).permute(0, 3, 1, 2, 4).reshape(B, T, H, D)
