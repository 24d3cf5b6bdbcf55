import subprocess
import sys

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from gguf import quants

from tests.weights.tiny import tiny_gguf, tiny_model
from weights.checkpoint import CheckpointError
from weights.gguf_directory import TensorInfo
from weights.gguf_header import read_header
from weights.gguf_tensors import PACKED, PLAIN, GgufSource, Stored
from weights.load import load

FAMILIES = ["llama", "gpt2", "gemma3"]


def written(path, kind, raw, shape):
    """A file of one tensor's bytes, and it as a source."""
    path.write_bytes(b"x" * 32 + raw.tobytes())
    info = TensorInfo(shape, kind, 32, raw.nbytes)
    return GgufSource(path, {"t": Stored(info, "none", 1)})


@pytest.mark.parametrize("kind", PACKED, ids=lambda kind: kind.name)
def test_every_packed_type_is_dequantised_as_the_gguf_package_does(tmp_path, kind):
    """Random bytes; those whose scales come out NaN or infinite are replaced by small ones."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    shape = (700, block * 3)
    raw = np.random.default_rng(0).integers(0, 60, (700, 3 * size), np.uint8)
    expected = torch.from_numpy(quants.dequantize(raw, kind))
    source = written(tmp_path / "t", kind, raw, shape)
    assert torch.equal(source.read("t"), expected)
    assert torch.equal(source.rows("t", 5, 600), expected[5:600])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "F64"])
def test_plain_types_keep_their_type_and_every_value(tmp_path, family, kind):
    path = tiny_gguf(tmp_path / "a.gguf", family, kind=kind)
    state = tiny_model(family).state_dict()
    checkpoint = load(path)
    for name, tensor in checkpoint.tensors.items():
        dtype = PLAIN[Kind[kind]]
        expected = state[name]
        is_norm = family == "gemma3" and "norm" in name
        assert tensor.dtype == (torch.float32 if expected.dim() == 1 else dtype)
        if expected.dim() > 1:
            expected = expected.to(dtype)
        assert torch.allclose(tensor, expected, atol=1e-6 if is_norm else 0, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["Q8_0", "Q4_1"])
def test_packed_matrices_land_in_their_canonical_rows(tmp_path, family, kind):
    """
    Rotary rows are moved back and Conv1D matrices turned, after dequantising: no exact twin, but a
    near one.
    """
    checkpoint = load(tiny_gguf(tmp_path / "a.gguf", family, kind=kind))
    assert checkpoint.stored_types[kind] > 0
    for name, expected in tiny_model(family).state_dict().items():
        if name != "lm_head.weight":
            step = expected.abs().max() / (100 if kind == "Q8_0" else 5)
            assert (checkpoint.tensors[name] - expected).abs().max() <= step, name


@pytest.mark.parametrize("fixture", ["smollm_path", "gemma_path"])
def test_real_tensors_are_what_the_gguf_package_dequantises(fixture, request):
    """One tensor of every stored type, against the package's own path."""
    path = request.getfixturevalue(fixture)
    infos = read_header(path).tensors
    by_kind = {
        info.kind: name for name, info in sorted(infos.items(), key=lambda i: -i[1].num_bytes)
    }
    source = GgufSource(path, {name: Stored(infos[name], "none", 1) for name in by_kind.values()})
    for kind, name in by_kind.items():
        info = infos[name]
        raw = np.fromfile(path, np.uint8, info.num_bytes, offset=info.offset)
        expected = quants.dequantize(raw.reshape(info.shape[0], -1), kind)
        assert torch.equal(source.read(name), torch.from_numpy(expected).view(info.shape))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_value_that_is_not_finite_is_refused_by_its_tensors_name(tmp_path, kind, bad):
    def spoiled(name, array):
        if name == "blk.1.ffn_up.weight":
            array = array.copy()
            array[3, 5] = bad
        return array

    checkpoint = load(tiny_gguf(tmp_path / "a.gguf", kind=kind, tensors=spoiled))
    with pytest.raises(
        CheckpointError, match=r"layers\.1\.mlp\.up_proj\.weight .* NaN or infinite"
    ):
        dict(checkpoint.tensors)


def test_type_that_holds_no_weights_is_refused_by_name(tmp_path):
    raw = np.zeros((4, 32), np.int32)
    with pytest.raises(CheckpointError, match="I32"):
        written(tmp_path / "t", Kind.I32, raw, raw.shape)


def test_reading_holds_the_result_and_little_more(gemma_path):
    """The 262,144 x 640 table must never exist twice, in any precision."""
    code = """
import resource, sys
from pathlib import Path
from weights.load import load
checkpoint = load(Path(sys.argv[1]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
table = checkpoint.tensors["model.embed_tokens.weight"]
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(grown * 1024 / (table.numel() * 4))
"""
    done = subprocess.run([sys.executable, "-c", code, gemma_path], capture_output=True, check=True)
    assert float(done.stdout) < 1.05
