"""Hugging Face folders that are damaged, lying or hostile: each one readable line."""

import errno
import json
import os
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.weights.tiny import tiny_hf
from weights.checkpoint import CheckpointError
from weights.load import load


@pytest.fixture
def folder(tmp_path):
    return tiny_hf(tmp_path / "tiny")


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
    "an index with a name too long for a file": index({"weight_map": {"a": "$" * 300}}),
    "an index with a name that is none": index({"weight_map": {"a": "a\0b"}}),
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


def test_file_that_may_not_be_read_is_one_readable_line(folder):
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


def test_a_file_that_may_not_be_read_is_not_called_absent(folder, monkeypatch):
    """Permissions do not bind a superuser, as whom this may run: the system's refusal is played."""

    opened = Path.open

    def refuse(path, *arguments, **options):
        if path.name != "model.safetensors":
            return opened(path, *arguments, **options)
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(CheckpointError, match=r"model.safetensors is not .*: .*Permission denied"):
        load(folder)
