"""The tie, settled once for all readers: one matrix at both ends, or the checkpoint is refused."""

from __future__ import annotations

import torch

from weights.checkpoint import CheckpointError, Tie, UntiedCheckpoint
from weights.families.family import Family
from weights.source import Source

CHUNK_VALUES = 1 << 20  # of each matrix, compared at a time: neither is ever held whole


def settle_tie(source: Source, family: Family, says_tied: bool | None) -> Tie:
    """`says_tied`: the config's tie_word_embeddings, None if silent. The tensors decide."""
    embedding, output = family.embedding, family.output
    if output not in source.shapes:
        if says_tied is False:
            raise CheckpointError(
                f"{output} is missing, and the config says tie_word_embeddings: false."
            )
        return Tie(embedding, "absent", source.num_bytes(embedding))
    if (difference := _largest_difference(source, embedding, output)) is not None:
        raise UntiedCheckpoint(
            f"Its output matrix is not its embedding: {_described(source, embedding)} and"
            f" {_described(source, output)}, {difference}; this server runs tied models only."
        )
    return Tie(embedding, "equal", source.num_bytes(embedding))


def _described(source: Source, name: str) -> str:
    return f"{name} {source.shapes[name]} {source.types[name]}"


def _largest_difference(source: Source, a: str, b: str) -> str | None:
    """None: equal bit for bit."""
    shape = source.shapes[a]
    if source.shapes[b] != shape:
        return "shapes differ"
    is_equal, largest = True, 0.0
    step = max(1, CHUNK_VALUES // shape[1])
    for first in range(0, shape[0], step):
        last = min(first + step, shape[0])
        x, y = source.rows(a, first, last), source.rows(b, first, last)
        if x.dtype == y.dtype and torch.equal(_bits(x), _bits(y)):
            continue
        x, y = x.float(), y.float()
        if not torch.equal(_bits(x), _bits(y)):
            is_equal, largest = False, max(largest, float((x - y).abs().max()))
    return None if is_equal else f"largest difference {largest:.6g}"


def _bits(values: torch.Tensor) -> torch.Tensor:
    """So that -0.0 is not 0.0, and a NaN is itself."""
    return values.contiguous().view(torch.uint8)
