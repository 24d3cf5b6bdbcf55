"""GGUF metadata -> the config that config.json would have given."""

import gguf
import numpy as np
import pytest
import torch

from tests.weights.tiny import tiny_gguf
from weights.checkpoint import CheckpointError, UnsupportedCheckpoint
from weights.fields import Fields
from weights.load import load
from weights.rope import read_rope

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
    "rope_theta": 10_000.0,
}


def entry(key, value, kind):
    """Writes over what the tiny file has."""

    def add(writer):
        writer.kv_data[0].pop(key, None)
        writer.add_key_value(key, value, gguf.GGUFValueType[kind])

    return add


def with_frequencies(path, factors):
    def add(writer):
        writer.add_tensor("rope_freqs.weight", np.array(factors, np.float32))

    return tiny_gguf(path, metadata=add)


def test_stored_frequencies_are_the_divisors_of_llama3s_rule(tmp_path):
    """Llama 3.2's converter works them out and stores them as a tensor."""
    expected = read_rope(Fields({"rope_parameters": LLAMA3}, "config.json"), 16).factors
    checkpoint = load(with_frequencies(tmp_path / "a.gguf", expected))
    assert checkpoint.config.ropes["full"].factors == pytest.approx(expected, rel=1e-6)
    assert "rope_freqs.weight" not in checkpoint.tensors


@pytest.mark.parametrize(
    "factors", [[1.0] * 7, [1.0] * 7 + [0.0], [1.0] * 7 + [np.nan], [-1.0] * 8]
)
def test_frequencies_that_cannot_be_are_refused(tmp_path, factors):
    with pytest.raises(CheckpointError, match=r"rope_freqs\.weight|factors"):
        load(with_frequencies(tmp_path / "a.gguf", factors))


def test_linear_scaling_is_read_and_other_kinds_are_refused_by_name(tmp_path):
    def scaled(kind):
        def add(writer):
            entry("llama.rope.scaling.type", kind, "STRING")(writer)
            entry("llama.rope.scaling.factor", 8.0, "FLOAT32")(writer)

        return tiny_gguf(tmp_path / f"{kind}.gguf", metadata=add)

    assert load(scaled("linear")).config.ropes["full"].factors == (8.0,) * 8
    assert load(scaled("none")).config.ropes["full"].factors is None
    with pytest.raises(UnsupportedCheckpoint, match="dynamic"):
        load(scaled("dynamic"))


def test_gemma3_takes_from_llama_cpp_what_its_file_leaves_out(gemma):
    config = gemma.config
    assert config.layer_types == (("sliding",) * 5 + ("full",)) * 3
    assert (config.ropes["full"].theta, config.ropes["sliding"].theta) == (1e6, 1e4)
    assert (config.sliding_window, config.attention_scale) == (512, 256**-0.5)
    assert config.embedding_scale == 640**0.5
    assert config.norm_eps == 1e-6


def test_default_model_is_read_as_its_config_json_says(smollm):
    config = smollm.config
    assert (config.hidden_size, config.num_layers, config.intermediate_size) == (576, 30, 1536)
    assert (config.num_heads, config.num_kv_heads, config.head_dim) == (9, 3, 64)
    assert (config.ropes["full"].theta, config.norm_eps) == (100_000.0, 1e-5)
    assert smollm.special.stop_ids == (2, 0)
    assert smollm.chat_template.startswith("{% for message in messages %}")


@pytest.mark.parametrize("fixture", ["smollm", "gemma"])
def test_every_access_reads_anew_and_gives_the_same(fixture, request):
    """The checkpoint holds no tensor: who takes one owns it."""
    checkpoint = request.getfixturevalue(fixture)
    name = next(name for name in checkpoint.tensors if name.endswith("o_proj.weight"))
    first, second = checkpoint.tensors[name], checkpoint.tensors[name]
    assert first.data_ptr() != second.data_ptr()
    assert torch.equal(first, second)
    with pytest.raises(KeyError):
        checkpoint.tensors["lm_head.weight"]


WRONG = {
    "another architecture": entry("general.architecture", "mamba", "STRING"),
    "an architecture that is a number": entry("general.architecture", 5, "UINT32"),
    "one part of many": entry("split.count", 3, "UINT16"),
    "no layers": entry("llama.block_count", 0, "UINT32"),
    "4 billion layers": entry("llama.block_count", 2**32 - 1, "UINT32"),
    "heads that do not divide": entry("llama.attention.head_count", 3, "UINT32"),
    "heads a layer": entry("llama.attention.head_count", [4, 2], "ARRAY"),
    "key-value heads a layer": entry("llama.attention.head_count_kv", [2, 1], "ARRAY"),
    "an odd width": entry("llama.rope.dimension_count", 15, "UINT32"),
    "half the width rotated": entry("llama.attention.key_length", 32, "UINT32"),
    "experts": entry("llama.expert_count", 8, "UINT32"),
    "a width of 2^64 - 1": entry("llama.embedding_length", 2**64 - 1, "UINT64"),
    "a width that is a text": entry("llama.embedding_length", "64", "STRING"),
    "a negative epsilon": entry("llama.attention.layer_norm_rms_epsilon", -1.0, "FLOAT32"),
    "a base of NaN": entry("llama.rope.freq_base", float("nan"), "FLOAT32"),
    "a scaling that is an array": entry("llama.rope.scaling.type", ["linear"], "ARRAY"),
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_metadata_that_cannot_be_served_is_one_readable_line(tmp_path, change):
    with pytest.raises(CheckpointError) as caught:
        load(tiny_gguf(tmp_path / "a.gguf", metadata=change))
    assert "\n" not in str(caught.value)
    assert 10 < len(str(caught.value)) < 400
