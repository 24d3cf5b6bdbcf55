import pytest
import torch

from model.generate import logits
from model.runner import build_transformer
from tests.weights.tiny import tiny_gguf, tiny_hf
from weights.load import load


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
def test_gguf_and_folder_of_the_same_weights_give_the_same_logits(tmp_path, family):
    folder = build_transformer(load(tiny_hf(tmp_path / "folder", family)))
    file = build_transformer(load(tiny_gguf(tmp_path / "model.gguf", family)))
    tokens = torch.randint(0, 400, (60,), generator=torch.Generator().manual_seed(1)).tolist()
    assert torch.equal(logits(folder, tokens), logits(file, tokens))
