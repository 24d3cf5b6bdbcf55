"""How each matrix is held, by what it is for."""

from __future__ import annotations

from typing import Literal

from weights.checkpoint import Checkpoint
from weights.quant import KINDS, Kind

Precision = Literal["auto", "float32", "bfloat16", "int8", "int4"]
# "table": the tied matrix, whose rounding reaches the input and every logit at once.
Role = Literal["table", "linear"]
MOST_BITS = 6  # of stored codes that int4 leaves alone


def kind_for(precision: Precision, role: Role, stored: Kind | None) -> Kind | None:
    """
    What a matrix is rounded to; None: not to codes. A role must be named to get four bits.

    `stored`: how the file has it. What has been rounded to about as few bits stays: SmolLM2's Q4_1
    would lose 0.3 nat by being rounded anew, and be no smaller to speak of (docs/performance.md).
    """
    if precision == "int4" and role == "linear":
        is_small = stored is not None and stored.bits <= MOST_BITS
        return stored if is_small else KINDS["Q4_0"]
    return KINDS["Q8_0"] if precision in ("int8", "int4") else None


def told(precision: Precision, checkpoint: Checkpoint) -> str:
    """What answers say they were computed from; for "auto" that is what the file has."""
    if precision != "auto":
        return precision
    if checkpoint.precision is not None:
        return checkpoint.precision
    kinds = [name for name in checkpoint.stored_types if name in KINDS]
    return "+".join(kinds) or ("bfloat16" if "BF16" in checkpoint.stored_types else "float32")
