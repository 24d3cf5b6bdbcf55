import os
import struct
import tracemalloc

import gguf
import numpy as np
import pytest
from gguf import GGUFReader
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.weights.tiny import tiny_gguf
from weights.checkpoint import CheckpointError, UnsupportedCheckpoint
from weights.gguf_header import read_header
from weights.load import load

HUGE = 2**63
U32, U64 = struct.Struct("<I").pack, struct.Struct("<Q").pack
UINT32, FLOAT32, BOOL, STRING, ARRAY = 4, 6, 7, 8, 9
F32, Q4_0 = 0, 2


def text(value):
    raw = value if isinstance(value, bytes) else value.encode()
    return U64(len(raw)) + raw


def pair(key, kind, value):
    return text(key) + U32(kind) + value


def tensor(name="t", shape=(8,), kind=F32, offset=0):
    return text(name) + U32(len(shape)) + b"".join(map(U64, shape)) + U32(kind) + U64(offset)


def file_of(*, magic=b"GGUF", version=3, pairs=(), tensors=(), counts=None, data=b"\0" * 64):
    num_tensors, num_pairs = counts or (len(tensors), len(pairs))
    head = magic + U32(version) + U64(num_tensors) + U64(num_pairs)
    head += b"".join(pairs) + b"".join(tensors)
    return head + b"\0" * (-len(head) % 32) + data


HOSTILE = {
    "empty": b"",
    "only a magic": b"GGUF",
    "another magic": file_of(magic=b"GGML"),
    "version 1": file_of(version=1),
    "version 4": file_of(version=4),
    "big-endian": file_of(version=3 << 24),
    "2^63 tensors": file_of(counts=(HUGE, 0)),
    "2^64 - 1 tensors": file_of(counts=(2**64 - 1, 0)),
    "more tensors than the file can hold": file_of(counts=(10, 0)),
    "2^63 metadata entries": file_of(counts=(0, HUGE)),
    "more metadata than there is": file_of(counts=(0, 3), pairs=[pair("a", UINT32, U32(1))]),
    "a key of 2^63 bytes": file_of(pairs=[U64(HUGE) + b"a" * 20]),
    "a key of 70,000 bytes": file_of(pairs=[pair("k" * 70_000, UINT32, U32(1))]),
    "a key that is not UTF-8": file_of(pairs=[pair(b"\xff\xfe", UINT32, U32(1))]),
    "a key twice": file_of(pairs=[pair("a", UINT32, U32(1))] * 2),
    "a value of unknown type": file_of(pairs=[pair("a", 99, U32(1))]),
    "a string of 2^63 bytes": file_of(pairs=[pair("a", STRING, U64(HUGE))]),
    "a string that is not UTF-8": file_of(pairs=[pair("a", STRING, text(b"\xc0\x80"))]),
    "a boolean of 7": file_of(pairs=[pair("a", BOOL, b"\x07")]),
    "2^61 strings": file_of(pairs=[pair("a", ARRAY, U32(STRING) + U64(2**61))]),
    "2^62 numbers": file_of(pairs=[pair("a", ARRAY, U32(FLOAT32) + U64(2**62))]),
    "an array of arrays": file_of(pairs=[pair("a", ARRAY, U32(ARRAY) + U64(1) + b"\0" * 40)]),
    "an array of unknown type": file_of(pairs=[pair("a", ARRAY, U32(77) + U64(1) + b"\0" * 40)]),
    "a string in an array that is too long": file_of(
        pairs=[pair("a", ARRAY, U32(STRING) + U64(2) + text("x") + U64(HUGE))]
    ),
    "a string in an array that is not UTF-8": file_of(
        pairs=[pair("a", ARRAY, U32(STRING) + U64(1) + text(b"\xff"))]
    ),
    "no dimensions": file_of(tensors=[tensor(shape=())]),
    "5 dimensions": file_of(tensors=[tensor(shape=(1, 1, 1, 1, 1))]),
    "2^32 - 1 dimensions": file_of(tensors=[text("t") + U32(2**32 - 1) + b"\0" * 64]),
    "a dimension of 0": file_of(tensors=[tensor(shape=(0,))]),
    "a dimension of 2^63": file_of(tensors=[tensor(shape=(HUGE,))]),
    "a product over 2^64": file_of(tensors=[tensor(shape=(2**32, 2**32, 4))]),
    "a product that is 0 modulo 2^64": file_of(tensors=[tensor(shape=(2**32, 2**30, 4))]),
    "an unknown tensor type": file_of(tensors=[tensor(kind=250)]),
    "rows that are no whole blocks": file_of(tensors=[tensor(shape=(33,), kind=Q4_0)]),
    "an offset of 2^63": file_of(tensors=[tensor(offset=HUGE)]),
    "an offset that is not aligned": file_of(tensors=[tensor(offset=7)]),
    "an offset beyond the end": file_of(tensors=[tensor(offset=64)]),
    "a tensor twice": file_of(tensors=[tensor(), tensor()]),
    "tensors that overlap": file_of(tensors=[tensor("a", (16,)), tensor("b", (8,), offset=32)]),
    "a name that is not UTF-8": file_of(tensors=[tensor(b"\xff")]),
    "an alignment of 0": file_of(pairs=[pair("general.alignment", UINT32, U32(0))]),
    "an alignment of 33": file_of(pairs=[pair("general.alignment", UINT32, U32(33))]),
    "an alignment of 2^31": file_of(pairs=[pair("general.alignment", UINT32, U32(2**31))]),
    "an alignment that is a text": file_of(pairs=[pair("general.alignment", STRING, text("32"))]),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_header_that_lies_is_one_readable_line_and_costs_no_memory(tmp_path, content):
    path = tmp_path / "hostile.gguf"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError) as caught:
            read_header(path)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)
    assert 10 < len(str(caught.value)) < 300


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_it_is_one_line_whatever_the_names_hold(tmp_path, content):
    """Fuzzing found `A string of t\\n.ggml.tokens is 50331649 bytes long`, on two lines."""
    path = tmp_path / "hostile.gguf"
    for name in ("a", "b", "t"):
        content = content.replace(text(name), text("\n"))
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read_header(path)
    assert str(caught.value).isprintable()


def test_unknown_type_and_version_are_named(tmp_path):
    path = tmp_path / "a.gguf"
    path.write_bytes(file_of(tensors=[tensor(kind=250)]))
    with pytest.raises(UnsupportedCheckpoint, match="250"):
        read_header(path)
    path.write_bytes(file_of(version=1))
    with pytest.raises(UnsupportedCheckpoint, match="version 1"):
        read_header(path)


def test_every_kind_of_metadata_comes_back(tmp_path):
    path = tmp_path / "a.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    values = {
        "uint8": 255,
        "int8": -128,
        "uint16": 65535,
        "int16": -5,
        "uint32": 7,
        "int32": -7,
        "uint64": 2**63,
        "int64": -(2**63),
    }
    for kind, value in values.items():
        writer.add_key_value(kind, value, gguf.GGUFValueType[kind.upper()])
    writer.add_float32("f32", 1e-5)
    writer.add_float64("f64", 0.1)
    writer.add_bool("yes", True)
    writer.add_string("text", "Grüße 🙂")
    writer.add_array("texts", ["a", "", "ü"])
    writer.add_array("numbers", [1, -2, 3])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    found = read_header(path).metadata
    assert {key: found[key] for key in values} == values
    assert (found["f32"], found["f64"], found["yes"], found["text"]) == (
        1e-5,
        0.1,
        True,
        "Grüße 🙂",
    )
    assert found["texts"] == ["a", "", "ü"]
    assert found["numbers"].tolist() == [1, -2, 3]


@pytest.mark.parametrize("fixture", ["smollm_path", "gemma_path"])
def test_real_headers_are_what_the_slow_reader_says(fixture, request):
    path = request.getfixturevalue(fixture)
    ours, theirs = read_header(path), GGUFReader(path)
    assert len(ours.tensors) == len(theirs.tensors)
    for tensor_ in theirs.tensors:
        info = ours.tensors[tensor_.name]
        assert info.shape == tuple(tensor_.shape.tolist()[::-1])
        assert info.kind == tensor_.tensor_type
        assert (info.offset, info.num_bytes) == (tensor_.data_offset, tensor_.n_bytes)
    for key, field in theirs.fields.items():
        if not key.startswith("GGUF."):
            same(ours.metadata[key], field)


def same(ours, field):
    if (
        len(field.data) > 5000
    ):  # spelling out the whole vocabulary takes the slow reader half a minute
        assert len(ours) == len(field.data)
        picked = list(range(0, len(field.data), 997))
        assert [ours[i] for i in picked] == [field.contents(i) for i in picked]
    elif isinstance(ours, np.ndarray):
        assert ours.tolist() == field.contents()
    elif isinstance(ours, float):
        assert np.float32(ours) == np.float32(field.contents())
    else:
        assert ours == field.contents()


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = tiny_gguf(tmp_path_factory.mktemp("small") / "small.gguf")
    whole = path.read_bytes()
    return (
        path.with_name("mutated.gguf"),
        whole,
        len(whole) - sum(info.num_bytes for info in read_header(path).tensors.values()),
    )


def test_file_cut_at_any_place_is_one_readable_line(small):
    path, whole, header = small
    cuts = [
        *range(0, 64),
        *range(64, header, 211),
        header,
        (header + len(whole)) // 2,
        len(whole) - 1,
    ]
    for cut in cuts:
        path.write_bytes(whole[:cut])
        with pytest.raises(CheckpointError):
            load(path)


NUMBERS = st.sampled_from([0, 1, 2, 31, 255, 2**31, 2**32 - 1, 2**61, 2**63 - 1, 2**63, 2**64 - 1])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_mutated_header_is_a_checkpoint_or_a_readable_error(small, data):
    path, whole, header = small
    changed = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, header - 9))
        if data.draw(st.booleans()):
            changed[at] = data.draw(st.integers(0, 255))
        else:
            changed[at : at + 8] = U64(data.draw(NUMBERS))
    path.write_bytes(changed)
    assert "\n" not in outcome(path)


def outcome(path):
    try:
        return f"a checkpoint of {len(dict(load(path).tensors))} tensors"
    except CheckpointError as error:
        return str(error)


@pytest.fixture(scope="module")
def real_header(smollm_path, tmp_path_factory):
    """The catalogue's file as far as its data, behind which the copy is a hole as large as that."""
    size = smollm_path.stat().st_size
    places = [info.offset for info in read_header(smollm_path).tensors.values()]
    header = smollm_path.read_bytes()[: min(places)]
    path = tmp_path_factory.mktemp("real") / "mutated.gguf"
    path.write_bytes(header)
    os.truncate(path, size)
    return path, header


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(edits=st.lists(st.tuples(st.floats(0, 1), NUMBERS | st.integers(0, 255)), min_size=1,
                      max_size=4), is_at_an_end=st.booleans())  # fmt: skip
def test_a_mutated_real_header_is_read_or_refused_in_one_line(real_header, edits, is_at_an_end):
    """Most of a real header is vocabulary: half of the edits are kept to its first and last KB."""
    path, header = real_header
    assert len(header) > 10**6
    with path.open("r+b") as file:
        for place, number in edits:
            at = int(place * (len(header) - 8))
            if is_at_an_end:
                at = int(place * 2048) if place < 0.5 else len(header) - 8 - int((1 - place) * 8192)
            file.seek(at)
            file.write(bytes([number]) if number < 256 else U64(number))
        file.flush()
        told = header_or_refusal(path)
        file.seek(0)
        file.write(header)
    assert "\n" not in told
    assert len(told) < 400


def header_or_refusal(path):
    try:
        return f"{len(read_header(path).tensors)} tensors"
    except CheckpointError as error:
        return str(error)
