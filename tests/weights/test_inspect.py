import pytest

from tests.model.tiny_families import TINY, make, save
from tests.published import PUBLISHED
from weights.config import read_config
from weights.fields import Fields
from weights.inspect import describe, inspect_lines, parameters
from weights.load import load
from weights.tying import tying_of


@pytest.mark.parametrize("variant", TINY)
def test_parameters_count_the_tied_matrix_once(tmp_path, variant):
    theirs = make(variant)
    expected = sum(tensor.numel() for tensor in theirs.parameters())
    checkpoint = load(save(theirs, tmp_path))
    assert parameters(checkpoint) == expected
    table = theirs.get_input_embeddings().weight
    assert tying_of(checkpoint.config).matrix == table.numel()


@pytest.mark.parametrize("model", PUBLISHED, ids=lambda model: model.name)
def test_parameters_of_published_models_are_those_their_files_have(model):
    _, config = read_config(Fields(model.config, "config.json"))
    assert tying_of(config).parameters == model.parameters


def test_both_contexts_of_longrope_are_told(tmp_path):
    found = describe(load(save(make("phi3: LongRoPE over a part of a head"), tmp_path)))
    assert found["context"].startswith("256 tokens; with a larger --max-context 1,024")


def test_default_model_is_described(smollm_path):
    lines = "\n".join(inspect_lines(smollm_path))
    assert "134,515,008" in lines
    assert "Q4_1 x 210, F32 x 61, Q8_0 x 1" in lines
    assert "the file has no output matrix" in lines
    assert "49,152 x 576 = 28,311,552 parameters, 21.0% of all; 30.1 MB stored" in lines
    assert "113.2 MB in float32, 56.6 MB in bfloat16" in lines
    assert "538.1 MB (113.2 MB of it the tied matrix)" in lines
    assert "46.1 KB a token, in float32" in lines


def test_what_the_tokenizer_adds_and_stops_at_is_told(gemma):
    found = describe(gemma)
    assert found["begins with"] == "2 '<bos>'"
    assert found["ends at"] == "1 '<eos>', 106 '<end_of_turn>'"
    assert found["layers"] == "18 (15 sliding)"
    assert found["chat template"] == "no"
