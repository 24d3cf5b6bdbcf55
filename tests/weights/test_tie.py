import pytest
import torch

from tests.weights.test_load import change_tensors
from tests.weights.tiny import tiny_gguf, tiny_hf, write_tensor
from weights.checkpoint import CheckpointError, UntiedCheckpoint
from weights.load import load

EMBEDDING, OUTPUT = "model.embed_tokens.weight", "lm_head.weight"


def with_output(folder, change, **options):
    tiny_hf(folder, **options)
    change_tensors(folder, lambda t: t.update({OUTPUT: change(t[EMBEDDING].clone())}))
    return folder


def test_absent_output_matrix_is_a_tie(tmp_path):
    tie = load(tiny_hf(tmp_path)).tie
    assert (tie.embedding, tie.reason, tie.num_bytes_stored) == (EMBEDDING, "absent", 512 * 64 * 4)


def test_equal_output_matrix_is_a_tie_and_is_dropped(tmp_path):
    checkpoint = load(with_output(tmp_path, lambda same: same))
    assert checkpoint.tie.reason == "equal"
    assert OUTPUT not in checkpoint.tensors


@pytest.mark.parametrize("says_tied", [True, False])
def test_different_output_matrix_is_refused_whatever_the_config_says(tmp_path, says_tied):
    def changed(table):
        table[7, 3] += 0.5
        return table

    with pytest.raises(UntiedCheckpoint) as caught:
        load(with_output(tmp_path, changed, tie_word_embeddings=says_tied))
    line = str(caught.value)
    assert f"{EMBEDDING} (512, 64) F32" in line
    assert f"{OUTPUT} (512, 64) F32" in line
    assert "largest difference 0.5" in line


def test_one_bit_of_difference_is_a_difference(tmp_path):
    def changed(table):
        table.view(torch.int32)[511, 63] ^= 1
        return table

    with pytest.raises(UntiedCheckpoint, match="largest difference"):
        load(with_output(tmp_path, changed))


def test_minus_zero_is_not_zero(tmp_path):
    tiny_hf(tmp_path)

    def zeros(tensors):
        tensors[EMBEDDING][0, 0] = 0.0
        tensors[OUTPUT] = tensors[EMBEDDING].clone()
        tensors[OUTPUT][0, 0] = -0.0

    change_tensors(tmp_path, zeros)
    with pytest.raises(UntiedCheckpoint, match="largest difference 0"):
        load(tmp_path)


def test_output_matrix_of_another_shape_is_refused_with_both_shapes(tmp_path):
    with pytest.raises(UntiedCheckpoint, match=r"\(512, 64\).*\(500, 64\).*shapes differ"):
        load(with_output(tmp_path, lambda table: table[:500].clone()))


def test_equal_values_in_another_type_are_a_tie(tmp_path):
    folder = tiny_hf(tmp_path, dtype=torch.bfloat16)
    change_tensors(folder, lambda t: t.update({OUTPUT: t[EMBEDDING].float()}))
    assert load(folder).tie.reason == "equal"


def test_config_that_says_untied_without_an_output_matrix_is_refused(tmp_path):
    tiny_hf(tmp_path, tie_word_embeddings=False)
    change_tensors(tmp_path, lambda t: t.pop(OUTPUT))
    with pytest.raises(CheckpointError, match=r"lm_head\.weight is missing.*tie_word_embeddings"):
        load(tmp_path)


def gguf_with_output(path, monkeypatch, kind, output_kind, change):
    """The output matrix is written beside the embedding."""
    from tests.weights import tiny

    plain = tiny.gguf_tensors

    def and_output(family, model):
        for name, array in plain(family, model):
            yield name, array
            if name == "token_embd.weight":
                yield "output.weight", change(array.copy())

    def write(writer, name, array, _):
        write_tensor(writer, name, array, output_kind if name == "output.weight" else kind)

    monkeypatch.setattr(tiny, "gguf_tensors", and_output)
    monkeypatch.setattr(tiny, "write_tensor", write)
    return tiny_gguf(path)


@pytest.mark.parametrize("kind", ["F32", "Q8_0", "Q4_0"])
def test_equal_packed_output_matrix_is_a_tie(tmp_path, monkeypatch, kind):
    path = gguf_with_output(tmp_path / "a.gguf", monkeypatch, kind, kind, lambda same: same)
    checkpoint = load(path)
    assert checkpoint.tie.reason == "equal"
    assert OUTPUT not in checkpoint.tensors


def test_output_matrix_packed_otherwise_is_refused_with_both_types(tmp_path, monkeypatch):
    path = gguf_with_output(tmp_path / "a.gguf", monkeypatch, "Q8_0", "Q4_0", lambda same: same)
    with pytest.raises(UntiedCheckpoint, match=r"Q8_0 and lm_head\.weight \(512, 64\) Q4_0"):
        load(path)
