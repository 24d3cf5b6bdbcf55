"""
Hugging Face folders: tokenizers as transformers reads them, memory-mapped weights, and every way to
be broken.
"""

import json
import os
import struct
import subprocess
import sys

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from tests.weights.nasty import nasty_texts
from tests.weights.test_load import change_tensors
from tests.weights.tiny import BOS, EOS, TEMPLATE, tiny_hf, tiny_model
from weights.checkpoint import CheckpointError, UnsupportedCheckpoint
from weights.load import load


def rewrite(path, **changes):
    raw = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: v for key, v in raw.items() if v is not ...}))


@pytest.fixture
def folder(tmp_path):
    return tiny_hf(tmp_path / "tiny")


def test_token_ids_are_those_of_transformers(folder):
    ours, theirs = load(folder).tokenizer, AutoTokenizer.from_pretrained(folder)
    for text in nasty_texts():
        assert ours.encode(text).ids == theirs(text)["input_ids"], text


@pytest.mark.parametrize("adds", [{"add_bos_token": True}, {"add_eos_token": True}])
def test_added_tokens_are_those_of_transformers(folder, adds):
    rewrite(folder / "tokenizer_config.json", **adds)
    checkpoint, theirs = load(folder), AutoTokenizer.from_pretrained(folder)
    assert checkpoint.tokenizer.encode("a b").ids == theirs("a b")["input_ids"]
    assert len(checkpoint.tokenizer.encode("a b").ids) == 3
    assert checkpoint.special.adds_bos is ("add_bos_token" in adds)


def test_truncation_and_padding_of_a_training_run_are_dropped(folder):
    rewrite(
        folder / "tokenizer.json",
        truncation={
            "direction": "Right",
            "max_length": 4,
            "strategy": "LongestFirst",
            "stride": 0,
        },
        padding={
            "strategy": {"Fixed": 64},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "<|endoftext|>",
        },
    )
    assert len(load(folder).tokenizer.encode("one two three four five six").ids) > 4
    assert len(load(folder).tokenizer.encode("a").ids) == 1


def test_special_tokens_come_from_the_tokenizers_settings(folder):
    special = load(folder).special
    assert (special.bos_id, special.eos_id, special.pad_id, special.unk_id) == (BOS, EOS, 0, 0)


def test_special_tokens_written_as_objects_are_read(folder):
    rewrite(folder / "tokenizer_config.json", bos_token={"content": "<|im_end|>", "lstrip": False})
    assert load(folder).special.bos_id == 2


def test_token_the_settings_call_null_is_none_and_one_they_leave_out_is_the_configs(folder):
    rewrite(folder / "tokenizer_config.json", bos_token=None, eos_token=...)
    special = load(folder).special
    assert (special.bos_id, special.eos_id) == (None, EOS)


def test_every_end_token_of_every_file_stops(folder):
    rewrite(folder / "generation_config.json", eos_token_id=[7, 9])
    rewrite(folder / "config.json", eos_token_id=[9, 11])
    stops = load(folder).special.stop_ids
    assert stops[:4] == (7, 9, 11, EOS)
    assert 0 in stops  # <|endoftext|>, which no file names here


@pytest.mark.parametrize("value", ["2", 2.5, [True], {"a": 1}, -7])
def test_end_token_that_is_no_id_is_refused(folder, value):
    rewrite(folder / "generation_config.json", eos_token_id=value)
    with pytest.raises(CheckpointError, match="eos_token_id must be token ids"):
        load(folder)


def test_end_token_beyond_the_vocabulary_is_refused(folder):
    rewrite(folder / "generation_config.json", eos_token_id=5000)
    with pytest.raises(CheckpointError, match="5000 is not one of the 512"):
        load(folder)


def test_chat_template_is_its_own_file_first(folder):
    assert load(folder).chat_template == TEMPLATE
    (folder / "chat_template.jinja").write_text("mine")
    assert load(folder).chat_template == "mine"


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("one", "one"),
        ([{"name": "rag", "template": "r"}, {"name": "default", "template": "d"}], "d"),
        ([{"name": "rag", "template": "r"}], None),
        (5, None),
    ],
)
def test_chat_template_among_the_tokenizers_settings(folder, written, read):
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    rewrite(folder / "tokenizer_config.json", chat_template=written)
    assert load(folder).chat_template == read


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_what_it_is(tmp_path, dtype):
    checkpoint = load(tiny_hf(tmp_path, dtype=dtype))
    assert checkpoint.stored_types == {"BF16" if dtype == torch.bfloat16 else "F16": 20}
    state = tiny_model(dtype=dtype).state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in checkpoint.tensors.items())


def test_type_that_holds_no_weights_is_refused_by_name(folder):
    name = "model.layers.0.mlp.up_proj.weight"
    change_tensors(folder, lambda t: t.update({name: t[name].to(torch.float8_e4m3fn)}))
    with pytest.raises(UnsupportedCheckpoint, match=r"up_proj\.weight is stored as F8_E4M3"):
        load(folder)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_value_that_is_not_finite_is_refused_by_its_tensors_name(tmp_path, dtype, bad):
    def spoil(tensors):
        tensors["model.layers.1.mlp.up_proj.weight"][3, 5] = bad

    change_tensors(tiny_hf(tmp_path, dtype=dtype), spoil)
    with pytest.raises(CheckpointError, match=r"layers\.1\.mlp\.up_proj\.weight has a value"):
        dict(load(tmp_path).tensors)


def test_shards_are_one_checkpoint(tmp_path):
    whole = load(tiny_hf(tmp_path / "whole"))
    folder = tiny_hf(tmp_path / "shards")
    (folder / "model.safetensors").unlink()
    tiny_model().save_pretrained(folder, max_shard_size="200KB")
    sharded = load(folder)
    assert len(sharded.files) > 1
    assert all(torch.equal(sharded.tensors[name], t) for name, t in whole.tensors.items())


def test_float32_weights_are_the_files_pages_and_not_a_copy(tmp_path):
    """One matrix of 64 MB, taken whole: the process grows by no anonymous memory of that size."""
    folder = tiny_hf(tmp_path, vocab_size=2**18)
    code = """
import sys
from pathlib import Path
from weights.load import load

def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))

checkpoint = load(Path(sys.argv[1]))
before = anonymous()
table = checkpoint.tensors["model.embed_tokens.weight"]
assert table.numel() == 2**24
print(anonymous() - before)
"""
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, check=True)
    assert int(done.stdout) < 8_000  # KB


def remove(name):
    return lambda folder: (folder / name).unlink()


def write(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def safetensors(header, data=b"\0" * 64, length=None):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = len(raw) if length is None else length
    return write("model.safetensors", struct.pack("<Q", size) + raw + data)


def one(shape=(16,), offsets=(0, 64), dtype="F32"):
    return {"model.norm.weight": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


def index(content):
    def change(folder):
        (folder / "model.safetensors").unlink()
        write("model.safetensors.index.json", json.dumps(content).encode())(folder)

    return change


BROKEN = {
    "no config": remove("config.json"),
    "no weights": remove("model.safetensors"),
    "no tokenizer": remove("tokenizer.json"),
    "config that is not JSON": write("config.json", b"{"),
    "config that is a list": write("config.json", b"[]"),
    "config that is not UTF-8": write("config.json", b'{"a": "\xff"}'),
    "config nested 100,000 deep": write("config.json", b'{"a":' + b"[" * 100_000),
    "config of 100 MB": write("config.json", b'{"a": "' + b"x" * 100_000_000 + b'"}'),
    "config with a number of 10,000 digits": write("config.json", b'{"a": ' + b"9" * 10_000 + b"}"),
    "tokenizer that is not JSON": write("tokenizer.json", b"{"),
    "tokenizer that is empty": write("tokenizer.json", b"{}"),
    "tokenizer of another kind": write("tokenizer.json", b'{"model": {"type": "Magic"}}'),
    "settings that are a list": write("tokenizer_config.json", b"[1]"),
    "an added token that is a number": write("tokenizer_config.json", b'{"add_bos_token": 1}'),
    "weights that are empty": write("model.safetensors", b""),
    "weights of 7 bytes": write("model.safetensors", b"\0" * 7),
    "a header of 2^60 bytes": safetensors(one(), length=2**60),
    "a header of 2^64 - 1 bytes": safetensors(one(), length=2**64 - 1),
    "a header beyond the file": safetensors(one(), length=10_000),
    "a header that is not JSON": safetensors(b"not json"),
    "a header that is not UTF-8": safetensors(b'{"\xff": 1}'),
    "offsets beyond the file": safetensors(one((2**20,), (0, 2**22))),
    "offsets the wrong way round": safetensors(one(offsets=(64, 0))),
    "negative offsets": safetensors(one(offsets=(-64, 0))),
    "a shape that is not its bytes": safetensors(one((99,))),
    "a shape whose product overflows": safetensors(one((2**32, 2**32, 16))),
    "a type that is not known": safetensors(one(dtype="F99")),
    "tensors that overlap": safetensors(
        {**one(), "b": {"dtype": "F32", "shape": [16], "data_offsets": [0, 64]}}
    ),
    "a hole before a tensor": safetensors(one(offsets=(64, 128)), data=b"\0" * 128),
    "an index without a map": index({}),
    "an index with a map of numbers": index({"weight_map": {"a": 5}}),
    "an index that leaves the folder": index({"weight_map": {"a": "../../etc/passwd"}}),
    "an index that names an absolute path": index({"weight_map": {"a": "/etc/passwd"}}),
    "an index that names no file": index({"weight_map": {"a": "model-9.safetensors"}}),
}


@pytest.mark.parametrize("damage", BROKEN.values(), ids=BROKEN)
def test_broken_folder_is_one_readable_line(folder, damage):
    damage(folder)
    with pytest.raises(CheckpointError) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    assert 10 < len(str(caught.value)) < 500


def test_pickled_weights_are_named_and_never_read(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="pickled weights are never read"):
        load(folder)


def test_file_that_may_not_be_read_is_one_readable_line(folder, monkeypatch):
    """Run as root, permissions stop nobody: a folder where a file should be does."""
    (folder / "config.json").unlink()
    os.mkdir(folder / "config.json")
    with pytest.raises(CheckpointError, match=r"config\.json: Is a directory"):
        load(folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tiny_hf(tmp_path_factory.mktemp("whole"))
    content = (folder / "model.safetensors").read_bytes()
    return folder, content, 8 + struct.unpack_from("<Q", content)[0]


def test_weights_cut_at_any_place_are_one_readable_line(whole):
    folder, content, header = whole
    for cut in [*range(0, 16), *range(16, header, 97), header, len(content) // 2, len(content) - 1]:
        (folder / "model.safetensors").write_bytes(content[:cut])
        with pytest.raises(CheckpointError):
            load(folder)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_mutated_header_is_a_checkpoint_or_a_readable_error(whole, data):
    folder, content, header = whole
    changed = bytearray(content)
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, header - 1))] = data.draw(st.integers(0, 255))
    (folder / "model.safetensors").write_bytes(changed)
    assert "\n" not in outcome(folder)


def outcome(folder):
    try:
        return f"a checkpoint of {len(dict(load(folder).tensors))} tensors"
    except CheckpointError as error:
        return str(error)
