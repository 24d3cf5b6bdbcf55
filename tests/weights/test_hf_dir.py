"""
Hugging Face folders: tokenizers as transformers reads them, memory-mapped weights, and every way to
be broken.
"""

import json
import subprocess
import sys

import pytest
import torch
from transformers import AutoTokenizer

from tests.weights.nasty import nasty_texts
from tests.weights.test_load import change_tensors
from tests.weights.tiny import BOS, EOS, TEMPLATE, tiny_hf, tiny_model
from weights.checkpoint import CheckpointError, UnsupportedCheckpoint
from weights.ends import set_ends
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


def test_beginning_token_is_added_where_tokenizer_json_says_so_and_nowhere_else(folder):
    """Like transformers, which lets no setting of tokenizer_config.json overrule tokenizer.json."""
    rewrite(folder / "tokenizer_config.json", add_bos_token=True)
    checkpoint, theirs = load(folder), AutoTokenizer.from_pretrained(folder)
    assert checkpoint.tokenizer.encode("a b").ids == theirs("a b")["input_ids"]
    assert not checkpoint.special.adds_bos
    set_ends(checkpoint.tokenizer, BOS, None)
    checkpoint.tokenizer.save(str(folder / "tokenizer.json"))
    checkpoint, theirs = load(folder), AutoTokenizer.from_pretrained(folder)
    assert checkpoint.tokenizer.encode("a b").ids == theirs("a b")["input_ids"]
    assert checkpoint.tokenizer.encode("a b").ids[0] == BOS
    assert checkpoint.special.adds_bos


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
from weights.ends import set_ends
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
