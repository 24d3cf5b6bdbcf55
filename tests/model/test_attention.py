import pytest
import torch

from model.attention import Scoring, attend, attend_fused, visible_keys


@pytest.mark.parametrize("window", [None, 1, 3, 100])
@pytest.mark.parametrize(("num_heads", "num_kv_heads"), [(9, 3), (4, 1), (5, 5)])
@pytest.mark.parametrize("num_queries", [1, 2, 17])
def test_fused_attention_is_the_reference(num_queries, num_heads, num_kv_heads, window):
    torch.manual_seed(num_queries)
    num_keys, head_dim = 40, 24
    q = torch.randn(3, num_queries, num_heads, head_dim)
    k, v = torch.randn(2, 3, num_keys, num_kv_heads, head_dim)
    starts = torch.tensor([0, 5, num_keys - num_queries])
    positions, scoring = starts[:, None] + torch.arange(num_queries), Scoring(0.2, window)
    slow, fast = (f(q, k, v, positions, scoring) for f in (attend, attend_fused))
    assert torch.allclose(slow, fast, atol=2e-6)


def test_a_query_sees_itself_and_what_was_before_it_within_the_window():
    seen = visible_keys(torch.tensor([[5, 6]]), num_keys=8, window=3)
    assert [row.nonzero().flatten().tolist() for row in seen[0]] == [[3, 4, 5], [4, 5, 6]]
    assert visible_keys(torch.tensor([[2]]), 8, None)[0, 0].tolist() == [True] * 3 + [False] * 5


def test_masked_keys_do_not_matter_whatever_they_hold():
    q, k, v = torch.randn(1, 1, 4, 8), torch.randn(1, 6, 2, 8), torch.randn(1, 6, 2, 8)
    positions, scoring = torch.tensor([[2]]), Scoring(1.0)
    before = attend_fused(q, k, v, positions, scoring)
    k[:, 3:], v[:, 3:] = 1e30, -1e30
    assert torch.equal(attend_fused(q, k, v, positions, scoring), before)
