"""
What each tensor of a checkpoint is for: what may be rounded, and how coarsely, hangs on it.

A tensor that no rule here knows is an error, never a guess: a table of positions taken for a matrix
would be rounded to four bits and nobody told.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from weights.checkpoint import ModelConfig
from weights.families.family import Family

Matrix = Literal["attention_in", "attention_out", "mlp_in", "mlp_out", "projection"]
# "tied"       the one matrix at both ends
# "positions"  a learned row a position: looked up and added, never multiplied by
# "projection" between a narrow tied matrix and the blocks
# "vector"     a norm's weights or a bias, also where they are stacked a row a head
Role = Literal["tied", "positions", "vector"] | Matrix

MATRICES: Mapping[Matrix, tuple[str, ...]] = {
    "attention_in": (
        *("q_proj", "k_proj", "v_proj", "qkv_proj"),
        *("attn.c_attn", "attn.Wqkv", "self_attention.query_key_value"),
    ),
    "attention_out": (
        *("self_attn.o_proj", "self_attn.out_proj", "attn.out_proj", "attention.out_proj"),
        *("attn.c_proj", "self_attention.dense"),
    ),
    "mlp_in": ("gate_proj", "up_proj", "gate_up_proj", "mlp.c_fc", "dense_h_to_4h", "fc1"),
    "mlp_out": ("down_proj", "mlp.c_proj", "dense_4h_to_h", "fc2"),
    "projection": ("project_in", "project_out"),
}
POSITIONS = ("positions_embed", "wpe", "embed_positions")


def roles(family: Family, config: ModelConfig) -> dict[str, Role]:
    """Canonical name -> role, of every tensor that a checkpoint of `config` has."""
    shapes = family.shapes(config)
    return {name: _role(family, name, len(shape)) for name, shape in shapes.items()}


def _role(family: Family, name: str, num_axes: int) -> Role:
    if name == family.embedding:
        return "tied"
    part = name.removesuffix(".weight")
    if num_axes == 1 or part.endswith("_norm"):
        return "vector"
    if _is_last(part, POSITIONS):
        return "positions"
    found = [role for role, ends in MATRICES.items() if _is_last(part, ends)]
    assert len(found) == 1, f"{name} of {family.name} has the roles {found}"
    return found[0]


def _is_last(part: str, ends: tuple[str, ...]) -> bool:
    return any(part.endswith(f".{end}") for end in ends)
