"""Which matrix is held how, from which file: decided by role, and nothing gets 4 bits unnamed."""

from typing import get_args

import pytest
import torch

from model.assemble import Parts
from model.kernels import choose
from model.precision import Precision, Role, input_bits_for, kind_for, told
from model.runner import build_transformer
from weights.catalog import resolve
from weights.load import load
from weights.quant import KINDS, QuantTensor
from weights.quantize import quantize

PRECISIONS = get_args(Precision)
WEIGHT = torch.randn(48, 64, generator=torch.Generator().manual_seed(0))


def parts(precision, stored=None, dtype=torch.float32):
    packed = {} if stored is None else {"a.weight": quantize(WEIGHT, KINDS[stored])}
    return Parts({"a.weight": WEIGHT.to(dtype)}, precision, choose(), packed)


def held(matrix):
    return matrix.kind.name if isinstance(matrix, QuantTensor) else matrix.dtype


@pytest.mark.parametrize(
    ("precision", "dtype", "expected"),
    [
        ("auto", torch.float32, torch.float32),
        ("auto", torch.float16, torch.float32),
        ("auto", torch.bfloat16, torch.bfloat16),
        ("float32", torch.bfloat16, torch.float32),
        ("bfloat16", torch.float32, torch.bfloat16),
        ("int8", torch.bfloat16, "Q8_0"),
        ("int4", torch.float16, "Q4_0"),
    ],
)
def test_plain_tensors_are_held_as_asked(precision, dtype, expected):
    assert held(parts(precision, dtype=dtype).linear("a").weight) == expected


@pytest.mark.parametrize(
    ("precision", "stored", "expected"),
    [
        ("auto", "Q4_0", "Q4_0"),
        ("auto", "Q8_0", "Q8_0"),
        ("int8", "Q4_0", "Q8_0"),
        ("int8", "Q8_0", "Q8_0"),
        ("int4", "Q4_0", "Q4_0"),
        ("int4", "Q8_0", "Q4_0"),
        ("float32", "Q4_0", torch.float32),
        ("bfloat16", "Q8_0", torch.bfloat16),
    ],
)
def test_blocks_stay_as_stored_or_become_what_is_asked_for(precision, stored, expected):
    assert held(parts(precision, stored).linear("a").weight) == expected


def test_the_tied_table_never_gets_4_bits_that_it_has_not_in_the_file():
    for precision in ("int8", "int4"):
        assert held(parts(precision).embedding("a").table) == "Q8_0"
        assert held(parts(precision, "Q8_0").embedding("a").table) == "Q8_0"


def test_only_a_linear_in_int4_has_4_bits_and_inputs_of_8():
    for precision in PRECISIONS:
        for role in get_args(Role):
            is_small = precision == "int4" and role != "table"
            kind = kind_for(precision, role, None)
            assert (kind is not None and kind.bits == 4) == is_small
            assert input_bits_for(precision, role, 16) == (8 if is_small else 16)


def test_inputs_of_8_bits_where_they_are_asked_for_are_those_of_mlps_alone():
    for precision in PRECISIONS:
        found = {role: input_bits_for(precision, role, 8) for role in get_args(Role)}
        assert found["table"] == 16
        assert found["mlp"] == 8
        assert found["linear"] == (8 if precision == "int4" else 16)


@pytest.mark.parametrize("name", ["smollm2-135m-instruct", "gemma-3-270m"])
def test_8_bit_inputs_reach_every_matrix_of_an_mlp_and_no_other_and_answers_say_so(name):
    checkpoint = load(resolve(name))
    for block in build_transformer(checkpoint, "auto", choose(), 8).blocks:
        mlp = (block.mlp.gate, block.mlp.up, block.mlp.down)
        assert {layer.input_bits for layer in mlp} == {8}
        others = (block.attention.output, block.attention.qkv.q, block.attention.qkv.v)
        assert {layer.input_bits for layer in others} == {16}
    assert told("auto", checkpoint, 8) == f"{told('auto', checkpoint)}, 8-bit MLP inputs"
    assert told("float32", checkpoint, 8) == "float32"


def test_a_transposed_matrix_is_rounded_as_it_multiplies():
    stored = Parts({"a.weight": WEIGHT.T, "a.bias": torch.zeros(48)}, "int8", choose())
    layer = stored.conv1d("a")
    assert layer.weight.shape == (48, 64)
    assert torch.equal(layer.weight.data, quantize(WEIGHT, KINDS["Q8_0"]).data)
