"""Folders of `tiedlm quantize`: written whole or not at all, and never believed when read."""

import json
import signal
import struct
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model.rounding import write_tensors
from tests.weights.tiny import tiny_hf
from weights.checkpoint import CheckpointError
from weights.load import load
from weights.new_folder import new_folder

MATRIX = "model.layers.0.mlp.down_proj.weight"


def write(source, target, precision="int8"):
    checkpoint = load(source)
    with new_folder(checkpoint, precision, target) as file:
        write_tensors(checkpoint, precision, file.add)
    return target


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed")
    return write(tiny_hf(folder / "source"), folder / "whole")


@pytest.fixture
def folder(whole, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in whole.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    return copy


def parts(folder):
    content = (folder / "model.safetensors").read_bytes()
    end = 8 + struct.unpack_from("<Q", content)[0]
    return json.loads(content[8:end]), content[end:]


def rewrite(folder, change):
    """`change` is given the header and, to alter in place, what its metadata says."""
    header, data = parts(folder)
    own = json.loads(header["__metadata__"]["tiedlm"])
    change(header, own)
    header["__metadata__"]["tiedlm"] = own if isinstance(own, str) else json.dumps(own)
    raw = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(raw)) + raw + data)


def entry(**fields):
    return lambda header, own: own["tensors"][MATRIX].update(fields)


def of_file(**fields):
    return lambda header, own: own.update(fields)


def renamed(header, own):
    own["tensors"]["elsewhere"] = own["tensors"].pop(MATRIX)


def a_vector_in_blocks(header, own):
    own["tensors"]["model.norm.weight"] = {"kind": "Q8_0", "shape": [64, 1]}


LYING = {
    "a format to come": of_file(format=2),
    "a format that is a text": of_file(format="1"),
    "a precision that is not one": of_file(precision="int3"),
    "no tensors": of_file(tensors=None),
    "tensors in a list": of_file(tensors=[MATRIX]),
    "a kind that is not known": entry(kind="Q9_9"),
    "a kind of other size": entry(kind="Q4_0"),
    "a kind that is a list": entry(kind=["Q8_0"]),
    "a shape that is not its bytes": entry(shape=[64, 256]),
    "a shape the other way round": entry(shape=[128, 64]),
    "more outputs than the model has, in as many tiles": entry(shape=[63, 128]),
    "a shape of one axis": entry(shape=[64]),
    "a negative shape": entry(shape=[-64, 128]),
    "a shape of nothing": entry(shape=[0, 128]),
    "a shape beyond all memory": entry(shape=[2**31, 2**31]),
    "a shape of 400 digits": entry(shape=[10**400, 128]),
    "a shape of true and false": entry(shape=[True, True]),
    "blocks of a tensor that is not there": renamed,
    "blocks where numbers are stored": a_vector_in_blocks,
    "bytes without blocks": lambda header, own: own["tensors"].pop(MATRIX),
}


@pytest.mark.parametrize("change", LYING.values(), ids=LYING)
def test_metadata_that_lies_is_one_readable_line(folder, change):
    rewrite(folder, change)
    with pytest.raises(CheckpointError) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    assert 10 < len(str(caught.value)) < 500


def test_the_rewriting_of_these_tests_is_not_what_is_refused(folder):
    rewrite(folder, lambda header, own: None)
    assert load(folder).precision == "int8"


@pytest.mark.parametrize("raw", ["[1]", "{", '{"a":' + "[" * 100_000])
def test_metadata_that_is_no_object_is_one_readable_line(folder, raw):
    header, data = parts(folder)
    header["__metadata__"]["tiedlm"] = raw
    content = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(content)) + content + data)
    with pytest.raises(CheckpointError, match="tiedlm"):
        load(folder)


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_a_scale_that_is_no_number_is_refused_when_it_is_read(folder, value):
    header, data = parts(folder)
    start = header[MATRIX]["data_offsets"][0]
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    at = len(content) - len(data) + start
    content[at : at + 2] = np.float16(value).tobytes()
    path.write_bytes(content)
    checkpoint = load(folder)
    for read in (checkpoint.packed, checkpoint.tensors):
        with pytest.raises(CheckpointError, match="NaN or infinite"):
            read[MATRIX]


def test_weights_cut_at_any_place_are_one_readable_line(folder):
    path = folder / "model.safetensors"
    content = path.read_bytes()
    for cut in [*range(0, len(content), 997), len(content) - 1]:
        path.write_bytes(content[:cut])
        with pytest.raises(CheckpointError):
            load(folder)


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_mutated_header_is_a_checkpoint_or_a_readable_error(whole, folder, data):
    content = (whole / "model.safetensors").read_bytes()
    used = len(content[: 8 + struct.unpack_from("<Q", content)[0]].rstrip())
    changed = bytearray(content)
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, used - 1))] = data.draw(st.integers(0, 255))
    (folder / "model.safetensors").write_bytes(changed)
    assert "\n" not in outcome(folder)


def outcome(folder):
    try:
        checkpoint = load(folder)
        return f"{len(dict(checkpoint.tensors))} tensors, {len(dict(checkpoint.packed))} in blocks"
    except CheckpointError as error:
        return str(error)


def test_nothing_is_overwritten(whole, tmp_path):
    (tmp_path / "kept").write_text("mine")
    for target in (tmp_path, tmp_path / "kept", whole):
        with pytest.raises(CheckpointError, match="exists"):
            write(whole, target)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_an_empty_folder_is_filled(whole, tmp_path):
    target = tmp_path / "empty"
    target.mkdir()
    assert load(write(whole, target)).sha256 == load(whole).sha256


def test_a_fault_on_the_way_leaves_nothing(whole, tmp_path):
    checkpoint = load(whole)

    def interrupted():
        with new_folder(checkpoint, "int8", tmp_path / "new") as file:
            write_tensors(checkpoint, "int8", file.add)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_whoever_writes_the_same_name_first_keeps_it(whole, tmp_path):
    checkpoint, target = load(whole), tmp_path / "new"

    def outrun():
        with new_folder(checkpoint, "int8", target) as file:
            write_tensors(checkpoint, "int8", file.add)
            target.mkdir()
            (target / "theirs").write_text("theirs")

    with pytest.raises(CheckpointError, match="not empty"):
        outrun()
    assert [path.name for path in target.iterdir()] == ["theirs"]


KILLED = """
import os, signal, sys
from pathlib import Path
from model.rounding import write_tensors
from weights.load import load
from weights.new_folder import new_folder

source, target, last = sys.argv[1:]
checkpoint = load(Path(source))
with new_folder(checkpoint, "int8", Path(target)) as file:
    def add(name, tensor):
        file.add(name, tensor)
        if name == last:
            file._file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    write_tensors(checkpoint, "int8", add)
"""


@pytest.mark.parametrize("last", ["model.embed_tokens.weight", "model.norm.weight"])
def test_what_a_killed_process_leaves_does_not_load(whole, tmp_path, last):
    target = tmp_path / "new"
    command = [sys.executable, "-c", KILLED, str(whole), str(target), last]
    done = subprocess.run(command, stderr=subprocess.PIPE, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert not target.exists()
    [partial] = tmp_path.iterdir()
    assert (partial / "model.safetensors").stat().st_size > 1000
    with pytest.raises(CheckpointError):
        load(partial)
