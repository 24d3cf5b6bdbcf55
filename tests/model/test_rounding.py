"""`tiedlm quantize` without the command: what it writes is what rounding at the start serves."""

import weakref
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from model.generate import logits
from model.rounding import write_tensors
from model.runner import build_transformer
from tests.model.tiny_families import TINY, make, save
from tests.weights.tiny import tiny_gguf, tiny_hf
from weights.load import load
from weights.new_folder import new_folder
from weights.quant import QuantTensor

TOKENS = list(range(5, 25))
TEXT = "It's 2024: naïve 東京 🙂 <|im_start|>user\n  x"


def quantised(checkpoint, target, precision="int8"):
    with new_folder(checkpoint, precision, target) as file:
        write_tensors(checkpoint, precision, file.add)
    return load(target)


def told(checkpoint, precision="auto"):
    return logits(build_transformer(checkpoint, precision), TOKENS)


@pytest.mark.parametrize("precision", ["int8", "int4"])
@pytest.mark.parametrize("family", TINY)
def test_every_family_answers_from_the_written_folder_as_from_its_source(
    family, precision, tmp_path
):
    source = load(save(make(family), tmp_path / "source"))
    written = quantised(source, tmp_path / "written", precision)
    assert torch.equal(told(written), told(source, precision))
    assert not torch.equal(told(written), told(source, "float32"))
    assert written.config == source.config


@pytest.mark.parametrize("precision", ["int8", "int4"])
@pytest.mark.parametrize("kind", ["F32", "Q8_0", "Q4_1"])
def test_a_gguf_file_becomes_a_folder_that_answers_alike(kind, precision, tmp_path):
    source = load(tiny_gguf(tmp_path / "tiny.gguf", kind=kind))
    written = quantised(source, tmp_path / "written", precision)
    assert torch.equal(told(written), told(source, precision))
    assert (written.special, written.chat_template) == (source.special, source.chat_template)
    assert written.tokenizer.encode(TEXT).ids == source.tokenizer.encode(TEXT).ids


def test_precisions_of_a_written_folder(tmp_path):
    """auto and its own keep the blocks; float32 has exactly what the blocks say."""
    source = load(tiny_hf(tmp_path / "source"))
    written = quantised(source, tmp_path / "written")
    table = build_transformer(written, "auto").embedding.table
    assert isinstance(table, QuantTensor)
    assert torch.equal(table.data, build_transformer(written, "int8").embedding.table.data)
    plain = build_transformer(written, "float32").embedding.table
    assert torch.equal(plain, written.tensors[written.tie.embedding])
    assert (plain - source.tensors[source.tie.embedding]).abs().max() < 0.01
    again = quantised(written, tmp_path / "again")
    assert again.sha256 == written.sha256


def test_a_matrix_in_the_file_is_the_matrix_that_multiplies(tmp_path):
    written = quantised(load(tiny_hf(tmp_path / "source")), tmp_path / "written")
    model = build_transformer(written, "auto")
    maps = Path("/proc/self/maps").read_text().splitlines()
    mapped = [line for line in maps if str(tmp_path / "written") in line]
    places = [tuple(int(x, 16) for x in line.split()[0].split("-")) for line in mapped]
    for weight in (model.embedding.table, model.blocks[0].mlp.down.weight):
        assert any(low <= weight.data.data_ptr() < high for low, high in places)
        assert weight.data.data_ptr() % 64 == 0


def test_a_matrix_is_gone_before_it_is_written_in_blocks(tmp_path):
    source = load(tiny_hf(tmp_path / "source"))
    taken = []

    class Watched(dict):
        def __getitem__(self, name):
            tensor = source.tensors[name].clone()
            taken.append(weakref.ref(tensor))
            return tensor

    def write(name, tensor):
        if isinstance(tensor, QuantTensor):
            assert taken[-1]() is None

    write_tensors(replace(source, tensors=Watched(source.tensors)), "int8", write)
    assert len(taken) == len(source.tensors)
