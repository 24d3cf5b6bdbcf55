"""Every tensor of every family has the role that transformers' own modules give it."""

import pytest
import torch
from transformers.pytorch_utils import Conv1D

from tests.model.tiny_families import TINY, make
from weights.config import read_config
from weights.families.roles import roles
from weights.fields import Fields

MATRICES = {"attention_in", "attention_out", "mlp_in", "mlp_out", "projection"}


@pytest.mark.parametrize("variant", TINY)
def test_matrices_are_what_transformers_multiplies_by_and_tables_what_it_looks_up(variant):
    theirs = make(variant)
    family, config = read_config(Fields(theirs.config.to_dict(), "config.json"))
    found = roles(family, config)
    modules = dict(theirs.named_modules())
    assert set(found) >= {name for name in theirs.state_dict() if name != "lm_head.weight"}
    for name, role in found.items():
        module = modules[name.rpartition(".")[0]]
        is_weight = name.endswith(".weight")
        is_matrix = is_weight and isinstance(module, torch.nn.Linear | Conv1D)
        assert (role in MATRICES) is is_matrix, name
        assert (role in ("tied", "positions")) is isinstance(module, torch.nn.Embedding), name
        assert (module is theirs.get_input_embeddings()) is (role == "tied"), name
        if is_matrix:
            assert family.is_conv1d is isinstance(module, Conv1D), name


@pytest.mark.parametrize("variant", TINY)
def test_each_block_reads_and_writes_the_residual_by_attention_and_mlp(variant):
    """A matrix's role says which side of it is as wide as the model."""
    family, config = read_config(Fields(make(variant).config.to_dict(), "config.json"))
    shapes = family.shapes(config)
    found = [(name, role) for name, role in roles(family, config).items() if role in MATRICES]
    assert {role for _, role in found} >= MATRICES - {"projection"}
    for name, role in found:
        rows, columns = shapes[name][::-1] if family.is_conv1d else shapes[name]
        if role in ("attention_in", "mlp_in"):
            assert columns == config.hidden_size, name
        if role in ("attention_out", "mlp_out"):
            assert rows == config.hidden_size, name
