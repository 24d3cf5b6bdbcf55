"""The same weights from a GGUF file: every family that GGUF has, every kind of matrix."""

import itertools
from dataclasses import replace

import pytest
import torch
from gguf import GGMLQuantizationType as Kind

from model.generate import logits
from model.runner import build_transformer
from tests.model.parity import prompt
from tests.model.tiny_families import TINY, make, save
from tests.weights.convert import ARCHITECTURES, convert
from weights import quant
from weights.families import FAMILIES
from weights.load import load
from weights.quant import dequantize

KINDS = (
    *(Kind.F32, Kind.F16, Kind.BF16, Kind.Q8_0, Kind.Q4_0, Kind.Q4_1, Kind.Q5_0, Kind.Q5_1),
    *(Kind.Q4_K, Kind.Q5_K, Kind.Q6_K),
)
# What a file cannot say, and llama.cpp decides in its code.
SAYABLE = {
    "gemma2": {"query_pre_attn_scalar": 24},
    "gemma3": {"query_pre_attn_scalar": 24},
    "starcoder2": {"sliding_window": None},
    "falcon": {"ffn_hidden_size": 288},
}
UNSAYABLE = {
    "gpt2: narrow MLP, exact GELU",
    "qwen2: a window in its upper layers",
    "smollm3: layers without positions as listed",
    "mpt: queries, keys and values cut",
    "falcon: a key-value head for each query head, MLP behind",
    "falcon: ALiBi",
}
# Widths that blocks of 256 divide; small in all else.
WIDE = {"hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 1}
BLOCKS = {
    "bloom": {"hidden_size": 256, "n_layer": 1, "n_head": 4},
    "falcon": {"hidden_size": 256, "ffn_hidden_size": 1024, "num_attention_heads": 8},
    "gpt2": {"n_embd": 256, "n_layer": 1, "n_head": 4},
    "mpt": {"d_model": 256, "n_layers": 1, "n_heads": 4},
}


def family_of(variant):
    return variant.split(":")[0]


def logits_of(path, tokens, precision="float32"):
    return logits(build_transformer(load(path), precision), tokens)


@pytest.mark.parametrize(
    "variant", [v for v in TINY if family_of(v) in ARCHITECTURES and v not in UNSAYABLE]
)
def test_a_gguf_file_gives_transformers_logits(tmp_path, variant):
    theirs = make(variant, **SAYABLE.get(family_of(variant), {}))
    convert(family_of(variant), theirs, tmp_path / "a.gguf")
    tokens = prompt(6)
    with torch.no_grad():
        expected = theirs(torch.tensor([tokens])).logits[0]
    assert torch.allclose(logits_of(tmp_path / "a.gguf", tokens), expected, atol=1e-4, rtol=0)


def wide(family):
    """A model whose widths blocks of 256 divide."""
    sizes = BLOCKS.get(family, WIDE | {"num_attention_heads": 8, "num_key_value_heads": 4})
    return make(family, **(SAYABLE.get(family, {}) | sizes | EXTRA.get(family, {})))


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_every_kind_of_matrix_is_its_dequantised_values(tmp_path, family):
    """The kinds in turn, so that reordered and transposed rows meet quantised ones."""
    theirs = wide(family)
    turn = itertools.cycle(KINDS[::-1])
    held = convert(family, theirs, tmp_path / "a.gguf", lambda name: next(turn))
    theirs.load_state_dict({k: torch.tensor(v) for k, v in held.items()}, strict=False)
    tokens = prompt(7, 40)
    with torch.no_grad():
        expected = theirs(torch.tensor([tokens])).logits[0]
    assert torch.allclose(logits_of(tmp_path / "a.gguf", tokens), expected, atol=1e-4, rtol=0)
    # The same blocks as stored: only what they are multiplied by is rounded, to 16 bits.
    packed = logits_of(tmp_path / "a.gguf", tokens, "auto")
    assert torch.allclose(packed, expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_a_file_of_any_kind_has_the_logits_of_its_dequantised_weights(tmp_path, family):
    """To the last bit: each matrix of each family in each kind, reordered ones too."""
    theirs = wide(family)
    folder = load(save(theirs, tmp_path))
    tokens, seen = prompt(7, 24), []
    for kind in KINDS:
        held = convert(family, theirs, tmp_path / "a.gguf", lambda name, kind=kind: kind)
        tensors = {name: torch.tensor(values) for name, values in held.items()}
        expected = logits(build_transformer(replace(folder, tensors=tensors), "float32"), tokens)
        assert torch.equal(logits_of(tmp_path / "a.gguf", tokens), expected), kind.name
        assert not any(torch.equal(expected, other) for other in seen)
        seen.append(expected)


EXTRA = {
    "gemma": {"head_dim": 32},
    "gemma2": {"head_dim": 32, "query_pre_attn_scalar": 32, "num_hidden_layers": 2},
    "gemma3": {"head_dim": 32, "query_pre_attn_scalar": 32, "num_hidden_layers": 6},
    "qwen3": {"head_dim": 32},
    "llama": {"head_dim": 32},
    "smollm3": {"num_hidden_layers": 4},
    "cohere2": {"num_hidden_layers": 4},
}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_file_of_one_kind_is_its_dequantised_values(tmp_path, kind):
    sizes = WIDE | {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 32}
    theirs = make("llama", **sizes)
    held = convert("llama", theirs, tmp_path / "a.gguf", lambda name: kind)
    checkpoint = load(tmp_path / "a.gguf")
    tensors, packed = checkpoint.tensors, checkpoint.packed
    for name, values in held.items():
        assert torch.equal(tensors[name].float(), torch.tensor(values)), name
        if name in packed:
            assert torch.equal(dequantize(packed[name]), torch.tensor(values)), name
    assert bool(packed) == (kind.name in quant.KINDS)


def test_every_family_of_gguf_is_converted():
    assert set(ARCHITECTURES) == {family.name for family in FAMILIES if family.gguf}
