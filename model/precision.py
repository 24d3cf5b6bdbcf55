"""How each matrix is held, by what it is for."""

from __future__ import annotations

from typing import Literal

from model.kernels import InputBits
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


def input_bits_for(precision: Precision, role: Role) -> InputBits:
    """
    What inputs are rounded to. 8 bits cost 0.004 nat, which int4 has room for: its products of many
    rows are 1.6 times as fast as with 16.
    """
    return 8 if precision == "int4" and role == "linear" else 16


def settled(precision: Precision, checkpoint: Checkpoint) -> Precision:
    """What "auto" is: of a folder that `tiedlm quantize` has written, what it was rounded to."""
    return (checkpoint.precision or "auto") if precision == "auto" else precision


def told(precision: Precision, checkpoint: Checkpoint) -> str:
    """What answers say they were computed from; for "auto" that is what the file has."""
    precision = settled(precision, checkpoint)
    if precision != "auto":
        return precision
    kinds = [name for name in checkpoint.stored_types if name in KINDS]
    return "+".join(kinds) or ("bfloat16" if "BF16" in checkpoint.stored_types else "float32")
