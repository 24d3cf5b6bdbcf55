import random

import torch

from model.generate import logits
from model.kv_pool import KVPool
from model.paged import plan
from model.runner import Runner, build_transformer
from model.step import Row
from tests.weights.tiny import tiny_hf
from weights.load import load


def test_the_worked_example_of_the_module():
    batch = plan([Row([9], 5, [7, 2])], page_size=4)
    assert (batch.positions.tolist(), batch.slots.tolist()) == ([5], [9])
    assert (batch.spans.rows.tolist(), batch.spans.pages.tolist()) == ([[0, 5, 1, 0]], [7, 2])


def test_every_row_knows_its_place():
    rows = [Row([1, 2, 3], 0, [0]), Row([4], 2, [1]), Row([5, 6], 4, [2, 3]), Row([7], 0, [4])]
    batch = plan(rows, page_size=4)
    assert batch.tokens.tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert batch.firsts == (0, 3, 4, 6)
    # What sees the most keys comes first: threads take rows in turn.
    assert batch.spans.rows.tolist() == [[4, 4, 2, 2], [0, 0, 3, 0], [3, 2, 1, 1], [6, 0, 1, 4]]
    assert batch.spans.pages.tolist() == [0, 1, 2, 3, 4]
    assert batch.filled == ()


def test_where_a_page_is_filled_is_known():
    rows = [Row([1, 2, 3], 1, [5]), Row([4] * 9, 3, [6, 7, 8]), Row([9], 4, [1, 2])]
    batch = plan(rows, page_size=4)
    assert batch.filled == ((2, 5), (3, 6), (7, 7), (11, 8))
    for token, page in batch.filled:
        assert batch.slots[token] == page * 4 + 3


def test_a_row_without_tokens_ends_where_the_state_kept_of_its_last_page_is():
    rows = [Row([], 8, [5, 6]), Row([1, 2, 3], 0, [0]), Row([], 4, [7]), Row([9], 4, [8, 9])]
    batch = plan(rows, page_size=4)
    assert batch.tokens.tolist() == [1, 2, 3, 9]
    assert batch.ends == (4, 2, 5, 3)
    assert batch.kept == (6, 7)
    assert plan(rows[:1], page_size=4).tokens.dtype == torch.int64


def test_any_chunking_over_scattered_dirty_pages_is_the_whole_text_at_once(tmp_path):
    """
    Windows of 8 and pages of 4, so that sliding layers drop pages; freed pages hold what others
    left there.
    """
    checkpoint = load(tiny_hf(tmp_path, "gemma3"))
    transformer = build_transformer(checkpoint)
    pool = KVPool(checkpoint.config, num_pages=40, page_size=4)
    pool.keys.normal_()
    pool.values.normal_()
    runner, chance = Runner(transformer, pool), random.Random(5)
    texts = [[chance.randrange(512) for _ in range(chance.randrange(2, 60))] for _ in range(3)]
    pages = list(range(40))
    chance.shuffle(pages)
    held = [[pages.pop() for _ in range(-(-len(text) // 4))] for text in texts]
    got, done = [[] for _ in texts], [0] * len(texts)
    while any(done[i] < len(text) - 1 for i, text in enumerate(texts)):
        rows, whose = [], []
        for i, text in enumerate(texts):
            if done[i] < len(text) - 1 and chance.random() < 0.7:
                end = min(len(text) - 1, done[i] + chance.choice([1, 1, 3, 20]))
                chunk, targets = text[done[i] : end], text[done[i] + 1 : end + 1]
                rows.append(Row(chunk, done[i], held[i][: -(-end // 4)], targets=targets))
                whose.append(i)
                done[i] = end
        for i, sampled in zip(whose, runner.step(rows) if rows else [], strict=True):
            got[i] += [score.logprob for score in sampled.scored]
    for text, logprobs in zip(texts, got, strict=True):
        whole = logits(transformer, text).log_softmax(-1)[:-1]
        expected = whole.gather(-1, torch.tensor(text[1:])[:, None])[:, 0]
        assert torch.allclose(torch.tensor(logprobs), expected, atol=1e-4)
