"""
What is the same for both readers: equal models, tensors that are missing or too many, names,
digests.
"""

import hashlib
import json

import gguf
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.weights.tiny import tiny_gguf, tiny_hf, tiny_model
from weights.checkpoint import CheckpointError, UnsupportedCheckpoint, UntiedCheckpoint
from weights.load import load

FAMILIES = ["llama", "gpt2", "gemma3"]


@pytest.mark.parametrize("family", FAMILIES)
def test_gguf_and_folder_of_one_model_are_one_checkpoint(tmp_path, family):
    folder = load(tiny_hf(tmp_path / "hf", family))
    file = load(tiny_gguf(tmp_path / "a.gguf", family))
    assert file.config == folder.config
    assert file.special == folder.special
    assert file.chat_template == folder.chat_template
    assert list(file.tensors) == list(folder.tensors)
    for name, tensor in folder.tensors.items():
        # 1 + w - 1 is not w to the last bit.
        close = 1e-6 if "norm" in name and family == "gemma3" else 0
        assert torch.allclose(file.tensors[name], tensor, atol=close, rtol=0), name
    text = "It's 1984, isn't it? 東京 🙂"
    assert file.tokenizer.encode(text).ids == folder.tokenizer.encode(text).ids


@pytest.mark.parametrize("family", FAMILIES)
def test_every_tensor_of_transformers_state_dict_is_there_under_its_name(tmp_path, family):
    checkpoint = load(tiny_hf(tmp_path, family))
    state = tiny_model(family).state_dict()
    del state["lm_head.weight"]
    assert checkpoint.tensors.keys() == state.keys()
    assert all(torch.equal(checkpoint.tensors[name], tensor) for name, tensor in state.items())


def test_biases_are_read_where_the_config_has_them(tmp_path):
    options = {"attention_bias": True}
    folder = load(tiny_hf(tmp_path / "hf", **options))
    file = load(tiny_gguf(tmp_path / "a.gguf", **options))
    assert folder.config.attention_bias
    assert file.config == folder.config
    for name in folder.tensors:
        assert torch.equal(folder.tensors[name], file.tensors[name]), name


@pytest.mark.parametrize(
    "missing", ["token_embd.weight", "output_norm.weight", "blk.1.attn_k.weight"]
)
def test_missing_tensor_of_a_file_is_named(tmp_path, missing):
    path = tiny_gguf(tmp_path / "a.gguf", tensors=lambda name, a: None if name == missing else a)
    with pytest.raises(CheckpointError, match="missing"):
        load(path)


def test_wrong_shape_in_a_file_is_named_with_both_shapes(tmp_path):
    def cut(name, array):
        return array[:, :32].copy() if name == "blk.0.ffn_up.weight" else array

    with pytest.raises(
        CheckpointError, match=r"mlp\.up_proj\.weight has shape \(128, 32\).*\(128, 64\)"
    ):
        load(tiny_gguf(tmp_path / "a.gguf", tensors=cut))


def change_tensors(folder, change):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    change(tensors)
    save_file(tensors, path, {"format": "pt"})


def test_missing_tensor_of_a_folder_is_named(tmp_path):
    change_tensors(tiny_hf(tmp_path), lambda t: t.pop("model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(CheckpointError, match=r"model\.layers\.1\.mlp\.up_proj\.weight is missing"):
        load(tmp_path)


def test_tensor_that_would_be_left_unused_is_refused_by_name(tmp_path):
    """Biases beside attention_bias: false would change every answer if they were ignored."""
    name = "model.layers.0.self_attn.q_proj.bias"
    change_tensors(tiny_hf(tmp_path), lambda t: t.update({name: torch.zeros(64)}))
    with pytest.raises(CheckpointError, match=r"q_proj\.bias is not a tensor that llama uses"):
        load(tmp_path)


def test_buffers_of_old_versions_are_ignored(tmp_path):
    name = "transformer.h.0.attn.bias"
    change_tensors(tiny_hf(tmp_path, "gpt2"), lambda t: t.update({name: torch.ones(1, 1, 8, 8)}))
    assert name not in load(tmp_path).tensors


def test_names_without_the_models_prefix_are_the_same_tensors(tmp_path):
    def strip(tensors):
        for name in list(tensors):
            tensors[name.removeprefix("transformer.")] = tensors.pop(name)

    expected = dict(load(tiny_hf(tmp_path / "a", "gpt2")).tensors)
    change_tensors(tiny_hf(tmp_path / "b", "gpt2"), strip)
    found = load(tmp_path / "b").tensors
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_embedding_smaller_than_the_tokenizer_is_refused_with_both_numbers(tmp_path):
    with pytest.raises(CheckpointError, match=r"token 408; the embedding has 300 rows"):
        load(tiny_hf(tmp_path, vocab_size=300))


def test_names_are_the_paths_own_unless_given(tmp_path):
    path = tiny_gguf(tmp_path / "small.gguf")
    assert load(path).name == "small"
    assert load(path, "org/name").name == "org/name"
    assert load(tiny_hf(tmp_path / "folder")).name == "folder"


def test_digest_is_of_the_file_or_of_the_lines_of_all(tmp_path):
    path = tiny_gguf(tmp_path / "small.gguf")
    assert load(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    folder = tiny_hf(tmp_path / "folder")
    tiny_model().save_pretrained(folder, max_shard_size="200KB")
    (folder / "model.safetensors").unlink()
    shards = sorted(folder.glob("*.safetensors"))
    assert len(shards) > 1
    lines = "".join(f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.name}\n" for p in shards)
    assert load(folder).sha256 == hashlib.sha256(lines.encode()).hexdigest()


@pytest.mark.parametrize("name", ["nothing.gguf", "nothing"])
def test_path_that_is_not_there_is_one_readable_line(tmp_path, name):
    with pytest.raises(CheckpointError, match="does not exist"):
        load(tmp_path / name)


def test_other_kind_of_file_is_refused(tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(b"\x80\x04.")
    with pytest.raises(CheckpointError, match=r"neither a folder nor a \.gguf file"):
        load(path)


def test_architecture_that_is_not_known_is_refused_with_those_that_are(tmp_path):
    folder = tiny_hf(tmp_path)
    config = json.loads((folder / "config.json").read_text()) | {"model_type": "llama9"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedCheckpoint, match=r"'llama9'; this server knows bloom, .*, gpt2"):
        load(folder)


@pytest.mark.parametrize("kind", ["gptj", "codegen", "gpt_neox", "phi"])
def test_families_with_an_output_matrix_of_their_own_are_refused_as_untied(tmp_path, kind):
    folder = tiny_hf(tmp_path)
    config = json.loads((folder / "config.json").read_text()) | {"model_type": kind}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UntiedCheckpoint, match=f"model_type is '{kind}'.*output matrix of its own"):
        load(folder)


@pytest.mark.parametrize("kind", ["lfm2", "mamba", "jamba", "falcon_h1", "recurrent_gemma"])
def test_families_that_are_not_attention_alone_are_refused_by_name(tmp_path, kind):
    folder = tiny_hf(tmp_path)
    config = json.loads((folder / "config.json").read_text()) | {"model_type": kind}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedCheckpoint, match=f"model_type is '{kind}'.*attention alone"):
        load(folder)


def test_gguf_architectures_are_refused_for_the_same_reasons(tmp_path):
    def named(kind):
        path = tmp_path / f"{kind}.gguf"
        writer = gguf.GGUFWriter(path, kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    with pytest.raises(UntiedCheckpoint, match=r"general\.architecture is 'gptj'"):
        load(named("gptj"))
    with pytest.raises(UnsupportedCheckpoint, match=r"general\.architecture is 'lfm2'"):
        load(named("lfm2"))
