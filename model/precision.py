"""How each matrix is held, by what it is for."""

from __future__ import annotations

from typing import Literal

from model.kernels import InputBits
from weights.checkpoint import Checkpoint
from weights.quant import KINDS, Kind

Precision = Literal["auto", "float32", "bfloat16", "int8", "int4"]
# "table": the tied matrix, whose rounding reaches the input and every logit at once.
# "mlp": a matrix of an MLP, whose inputs may be rounded to 8 bits where speed is asked for.
Role = Literal["table", "linear", "mlp"]
MOST_BITS = 6  # of stored codes that int4 leaves alone


def kind_for(precision: Precision, role: Role, stored: Kind | None) -> Kind | None:
    """
    What a matrix is rounded to; None: not to codes. A role must be named to get four bits.

    `stored`: how the file has it. What has been rounded to about as few bits stays: SmolLM2's Q4_1
    would lose 0.3 nat by being rounded anew, and be no smaller to speak of (docs/performance.md).
    """
    if precision == "int4" and role != "table":
        is_small = stored is not None and stored.bits <= MOST_BITS
        return stored if is_small else KINDS["Q4_0"]
    return KINDS["Q8_0"] if precision in ("int8", "int4") else None


def input_bits_for(precision: Precision, role: Role, of_mlp: InputBits) -> InputBits:
    """
    What a packed matrix's inputs are rounded to: 16 bits cost a mean of 6e-8 nat. 8 bits
    cost 0.004 nat, which int4 has room for: its products of many rows are 1.6 times as fast. Of the
    other precisions, MLPs have what is asked for: `of_mlp`.
    """
    if precision == "int4":
        return 16 if role == "table" else 8
    return of_mlp if role == "mlp" else 16


def settled(precision: Precision, checkpoint: Checkpoint) -> Precision:
    """What "auto" is: of a folder that `tiedlm quantize` has written, what it was rounded to."""
    return (checkpoint.precision or "auto") if precision == "auto" else precision


def told(precision: Precision, checkpoint: Checkpoint, mlp_input_bits: InputBits = 16) -> str:
    """What answers say they were computed from; for "auto" that is what the file has."""
    precision = settled(precision, checkpoint)
    kinds = [name for name in checkpoint.stored_types if name in KINDS]
    if precision == "auto":
        plain = "bfloat16" if "BF16" in checkpoint.stored_types else "float32"
        name, is_packed = "+".join(kinds) or plain, bool(kinds)
    else:
        name, is_packed = precision, precision == "int8"
    return f"{name}, 8-bit MLP inputs" if is_packed and mlp_input_bits == 8 else name
