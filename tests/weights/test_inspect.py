from tests.weights.tiny import tiny_gguf, tiny_model
from weights.inspect import describe, inspect_lines, parameters
from weights.load import load


def test_parameters_count_the_tied_matrix_once(tmp_path):
    for family in ("llama", "gpt2", "gemma3"):
        expected = sum(tensor.numel() for tensor in tiny_model(family).parameters())
        assert parameters(load(tiny_gguf(tmp_path / f"{family}.gguf", family))) == expected


def test_default_model_is_described(smollm_path):
    lines = "\n".join(inspect_lines(smollm_path))
    assert "134,515,008" in lines
    assert "Q4_1 x 210, F32 x 61, Q8_0 x 1" in lines
    assert "the file has no output matrix" in lines
    assert "30.1 MB stored" in lines
    assert "538.1 MB (113.2 MB of it the tied matrix)" in lines
    assert "46.1 KB a token, in float32" in lines


def test_what_the_tokenizer_adds_and_stops_at_is_told(gemma):
    found = describe(gemma)
    assert found["begins with"] == "2 '<bos>'"
    assert found["ends at"] == "1 '<eos>', 106 '<end_of_turn>'"
    assert found["layers"] == "18 (15 sliding)"
    assert found["chat template"] == "no"
