import pytest
import torch

from model.embedding import TiedEmbedding
from model.kernels import choose


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lookup_and_projection_read_one_storage(dtype):
    table = torch.randn(11, 6).to(dtype)
    embedding = TiedEmbedding(table, choose(), scale=2.0)
    hidden = torch.eye(6)
    before = embedding.lookup(torch.tensor([3])), embedding.logits(hidden)[:, 3]
    table[3] = 7.0  # behind the embedding's back: both ends must see it
    assert torch.equal(embedding.lookup(torch.tensor([3])), torch.full((1, 6), 14.0))
    assert torch.equal(embedding.logits(hidden)[:, 3], torch.full((6,), 7.0))
    assert not torch.equal(before[0], embedding.lookup(torch.tensor([3])))
    assert embedding.num_bytes == 11 * 6 * table.element_size()


def test_logits_are_scaled_and_then_capped():
    table, hidden = torch.randn(50, 4), torch.randn(3, 4) * 10
    plain = TiedEmbedding(table, choose()).logits(hidden)
    scaled = TiedEmbedding(table, choose(), logit_scale=0.5).logits(hidden)
    capped = TiedEmbedding(table, choose(), logit_scale=0.5, logit_cap=3.0).logits(hidden)
    assert torch.equal(scaled, plain * 0.5)
    assert torch.allclose(capped, 3.0 * torch.tanh(plain * 0.5 / 3.0), atol=1e-6)
    assert float(capped.abs().max()) <= 3.0


def test_the_scale_is_for_lookup_only():
    table = torch.randn(5, 4)
    kernels = choose()
    plain, scaled = TiedEmbedding(table, kernels), TiedEmbedding(table, kernels, scale=4**0.5)
    tokens, hidden = torch.arange(5), torch.randn(2, 4)
    assert torch.equal(scaled.lookup(tokens), plain.lookup(tokens) * 2.0)
    assert torch.equal(scaled.logits(hidden), plain.logits(hidden))
