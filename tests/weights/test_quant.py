"""Packed matrices against the gguf package's own reading of the same blocks: bit for bit."""

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, quants

from weights.gguf_blocks import is_finite, take_apart
from weights.quant import (
    KINDS,
    TILE,
    Rows,
    dequantize,
    dequantize_rows,
    empty,
    layout_of,
    pack,
    unpack,
)

ALL = list(KINDS.values())
SIZES = {"K": 256}


def of_gguf(kind):
    return getattr(quants, kind.name)


def random_blocks(kind, num_rows, num_blocks, seed=0):
    """Every bit at random, but that no float16 of scales is NaN or infinite."""
    chance = np.random.default_rng(seed)
    size = of_gguf(kind).type_size
    raw = chance.integers(0, 256, (num_rows, num_blocks, size), dtype=np.uint8)
    for at in {"Q4_1": (0, 2), "Q5_1": (0, 2), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}.get(
        kind.name, (0,)
    ):
        raw[:, :, at + 1] &= 0xBB
    return raw.reshape(num_rows, -1)


def packed(kind, raw):
    of = of_gguf(kind)
    width = raw.shape[1] // of.type_size * of.block_size
    tensor = empty(kind, (len(raw), width))
    pack(tensor, 0, take_apart(kind, raw, len(raw)))
    return tensor


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
@pytest.mark.parametrize(("num_rows", "num_blocks"), [(1, 1), (16, 2), (37, 3), (200, 5)])
def test_blocks_are_dequantised_to_the_bits_of_the_gguf_package(kind, num_rows, num_blocks):
    raw = random_blocks(kind, num_rows, num_blocks)
    expected = of_gguf(kind).dequantize(raw)
    tensor = packed(kind, raw)
    assert tensor.shape == expected.shape
    assert np.array_equal(dequantize(tensor).numpy().view(np.int32), expected.view(np.int32))


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_a_lookup_gives_the_rows_of_the_whole(kind):
    tensor = packed(kind, random_blocks(kind, 53, 2))
    whole, rows = dequantize(tensor), torch.tensor([52, 0, 17, 17, 31, 32])
    assert torch.equal(dequantize_rows(tensor, rows), whole[rows])
    assert dequantize_rows(tensor, torch.tensor([], dtype=torch.int64)).shape == (0, whole.shape[1])
    for first, last in [(0, 53), (0, 1), (15, 17), (16, 32), (33, 53), (7, 7)]:
        assert torch.equal(dequantize(tensor, first, last), whole[first:last])


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_what_is_unpacked_is_what_was_packed_and_every_byte_is_written(kind):
    num_blocks, num_rows = 5, 37
    at = layout_of(kind, 32 * num_blocks - 3)
    chance = np.random.default_rng(1)
    has_subs = kind.groups_per_scale > 1
    halves = lambda: chance.standard_normal((num_rows, at.num_scales)).astype(np.float16)  # noqa: E731
    bytes_ = lambda: chance.integers(-128, 128, (num_rows, at.num_groups)).astype(np.int8)  # noqa: E731
    rows = Rows(
        chance.integers(0, 2**kind.bits, (num_rows, 32 * num_blocks), dtype=np.uint8),
        halves(),
        halves() if kind.has_offset else None,
        bytes_() if has_subs else None,
        bytes_() if has_subs and kind.has_offset else None,
    )
    found = []
    for poison in (0, 255):
        tensor = empty(kind, (num_rows, 32 * num_blocks - 3))
        tensor.data.fill_(poison)
        pack(tensor, 0, slice_of(rows, 0, 32))
        pack(tensor, 32, slice_of(rows, 32, num_rows))
        found.append(tensor.data)
    assert torch.equal(*found)
    back = unpack(tensor, 0, 3)
    for name in Rows.__dataclass_fields__:
        expected, part = getattr(rows, name), getattr(back, name)
        assert (part is None) == (expected is None)
        assert expected is None or np.array_equal(part[:num_rows], expected), name


def slice_of(rows, first, last):
    parts = (getattr(rows, name) for name in Rows.__dataclass_fields__)
    return Rows(*(None if part is None else part[first:last] for part in parts))


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_packing_costs_few_bytes_over_the_file(kind):
    """Sub-scales take a byte where GGUF has six bits; the parts of a tile begin on lines."""
    of, width = of_gguf(kind), 2048
    stored = TILE * width // of.block_size * of.type_size
    bound = 1.0 if kind.groups_per_scale == 1 else 1.03
    assert stored <= layout_of(kind, width).tile_bytes <= bound * stored


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_scale_that_is_not_finite_is_seen(kind, value):
    rows = take_apart(kind, random_blocks(kind, 3, 2), 3)
    assert is_finite(rows)
    for part in (rows.scales, rows.offsets):
        if part is not None:
            kept, part[1, 1] = part[1, 1], value
            assert not is_finite(rows)
            part[1, 1] = kept


def test_every_affine_block_type_of_gguf_can_be_packed():
    names = {kind.name for kind in GGMLQuantizationType}
    assert KINDS.keys() <= names
