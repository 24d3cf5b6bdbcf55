import random

import pytest
import torch

import model.answers
from model.generate import generate, logits
from model.kv_pool import KVPool
from model.runner import Runner, build_runner, build_transformer
from model.step import Ask, Row, Sampling
from tests.weights.tiny import tiny_hf
from weights.load import load

GREEDY = Sampling(temperature=0.0)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return load(tiny_hf(tmp_path_factory.mktemp("tiny"), "llama"))


@pytest.fixture
def runner(checkpoint):
    return build_runner(checkpoint, num_pages=32)


def test_greedy_through_the_cache_is_the_naive_loop(runner):
    prompt = list(range(40, 60))
    tokens, done = list(prompt), 0
    while len(tokens) < len(prompt) + 20:
        pages = list(range(-(-len(tokens) // runner.page_size)))
        (sampled,) = runner.step([Row(tokens[done:], done, pages, GREEDY)])
        done = len(tokens)
        tokens.append(sampled.drawn[0].token)
    assert tokens[len(prompt) :] == generate(runner.transformer, prompt, 20)


def test_rows_that_ask_nothing_get_nothing(runner):
    silent, drawing = runner.step([Row([1, 2], 0, [0]), Row([3], 0, [1], GREEDY)])
    assert (silent.drawn, silent.report, silent.scored) == ((), None, ())
    [drawn] = drawing.drawn
    assert (drawn.score, drawn.report) == (None, None)


def test_drawing_and_asking_see_one_distribution(runner):
    sampling = Sampling(temperature=0.7, seed=9)
    ask = Ask(top=5, ids=(3, 4), summary=True, full=True)
    (sampled,) = runner.step([Row([5, 6, 7], 0, [0], sampling, ask)])
    (drawn,) = sampled.drawn
    whole = logits(runner.transformer, [5, 6, 7])[-1]
    full = torch.frombuffer(bytearray(drawn.report.full), dtype=torch.float32)
    assert torch.allclose(full, whole.log_softmax(-1), atol=1e-5)
    assert full.exp().sum() == pytest.approx(1.0, abs=1e-5)
    for score in (*drawn.report.top, *drawn.report.ids, drawn.score):
        assert score.logprob == full[score.token]  # the same float, not nearly
        assert score.logit == pytest.approx(float(whole[score.token]), abs=1e-4)


def test_processed_means_what_was_drawn_from(runner):
    sampling = Sampling(temperature=0.5, top_k=2, seed=1)
    ask = Ask(top=3, is_processed=True, full=True)
    (sampled,) = runner.step([Row([5, 6, 7], 0, [0], sampling, ask)])
    (drawn,) = sampled.drawn
    full = torch.frombuffer(bytearray(drawn.report.full), dtype=torch.float32)
    best = (logits(runner.transformer, [5, 6, 7])[-1] / 0.5).topk(2)
    assert torch.allclose(full[best.indices], best.values.log_softmax(-1), atol=1e-5)
    assert (~full.isneginf()).sum() == 2
    assert drawn.token in best.indices
    assert drawn.score.logprob == full[drawn.token]
    assert drawn.report.top[2].logprob == float("-inf")


def test_a_neighbour_with_other_wishes_changes_nothing(runner):
    def row(pages, **kwargs):
        return Row([5, 6, 7], 0, pages, GREEDY, Ask(top=4), **kwargs)

    (alone,) = runner.step([row([0])])
    loud = Row([9], 0, [1], Sampling(temperature=2.0, top_p=0.5), Ask(is_processed=True, full=True))
    scored = Row([1, 2], 0, [2], targets=[2, 3], targets_ask=Ask(top=1))
    _, together, _ = runner.step([loud, row([3]), scored])
    assert together.drawn == alone.drawn
    assert len(alone.drawn[0].report.top) == 4


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(temperature=0.9, seed=3, top_k=40)])
def test_drafts_are_answered_as_one_token_after_another_would_be(runner, sampling):
    ask, text, one_by_one = Ask(top=2), [5, 6, 7], []
    for i in range(5):
        row = Row(text, 0, [0], sampling, ask, output=text[3:])
        one_by_one += runner.step([row])[0].drawn
        text = [*text, one_by_one[i].token]
    wrong = (text[5] + 1) % 512
    for drafts, num_drawn in ((text[3:7], 5), (text[3:5], 3), ([*text[3:5], wrong, 9], 3)):
        row = Row([5, 6, 7, *drafts], 0, [1], sampling, ask, num_drafts=len(drafts))
        neighbour = Row([5, 6], 0, [2], GREEDY)
        _, sampled = runner.step([neighbour, row])
        assert sampled.drawn == tuple(one_by_one[:num_drawn])


@pytest.mark.parametrize("ask", [Ask(top=3, summary=True), Ask(top=3, ids=(4,))])
def test_scores_of_a_prompt_do_not_depend_on_the_chunk_of_logits(runner, monkeypatch, ask):
    text = [random.Random(0).randrange(512) for _ in range(50)]
    row = Row(text[:-1], 0, [0, 1, 2, 3], targets=text[1:], targets_ask=ask)
    (whole,) = runner.step([row])
    monkeypatch.setattr("model.kernels.native_projection.MAX_ROWS", 7)
    monkeypatch.setattr(model.answers, "CHUNK_BYTES", 7 * 512 * 8)
    (chunked,) = runner.step([row])
    assert len(whole.scored) == len(whole.scored_reports) == 49
    for a, b in zip(whole.scored, chunked.scored, strict=True):
        assert a == b
    exact = logits(runner.transformer, text).log_softmax(-1)
    for position, (score, report) in enumerate(
        zip(whole.scored, whole.scored_reports, strict=True)
    ):
        assert score.logprob == pytest.approx(float(exact[position, score.token]), abs=1e-4)
        assert report.top[0].token == int(exact[position].argmax())


def test_a_step_that_is_not_finite_raises_and_leaves_its_pages_clean(checkpoint):
    transformer = build_transformer(checkpoint)
    runner = Runner(transformer, KVPool(checkpoint.config, 4))
    good = transformer.embedding.table[7].clone()
    (before,) = runner.step([Row([1, 2, 3], 0, [1], GREEDY)])
    transformer.embedding.table[7] = float("nan")
    with pytest.raises(FloatingPointError, match="not finite"):
        runner.step([Row([7, 7, 7], 0, [0], GREEDY)])
    transformer.embedding.table[7] = good
    assert runner.pool.keys[:, 0].abs().sum() == 0
    (after,) = runner.step([Row([1, 2, 3], 0, [0], GREEDY)])
    assert after.drawn == before.drawn


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_tied_matrix_is_held_once_and_nothing_twice(checkpoint, precision):
    transformer = build_transformer(checkpoint, precision)
    width = 4 if precision == "float32" else 2
    table = transformer.embedding.table
    assert transformer.storages()[table.data_ptr()] == 512 * 64 * width
    sizes = sorted(transformer.storages().values(), reverse=True)
    assert sizes.count(512 * 64 * width) == 1
    matrices = 2 * (64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 128) * width
    vectors = 5 * 64 * 4 + 8 * 4  # five norms and the rotary frequencies
    assert sum(sizes) == 512 * 64 * width + matrices + vectors


def test_bfloat16_storage_is_the_rounded_model_computed_in_float32(checkpoint):
    rounded = build_transformer(checkpoint, "bfloat16")
    exact = build_transformer(checkpoint)
    for block in exact.blocks:
        mlp, attention = block.mlp, block.attention
        for linear in (mlp.gate, mlp.up, mlp.down, attention.output, attention.qkv.q):
            linear.weight.copy_(linear.weight.bfloat16())
        for linear in (attention.qkv.k, attention.qkv.v):
            linear.weight.copy_(linear.weight.bfloat16())
    exact.embedding.table.copy_(exact.embedding.table.bfloat16())
    tokens = list(range(30))
    assert torch.allclose(logits(rounded, tokens), logits(exact, tokens), atol=1e-4)


def test_the_token_after_a_cached_page_is_scored_from_the_state_kept_with_the_page(runner):
    text = [random.Random(1).randrange(512) for _ in range(20)]
    (whole,) = runner.step([Row(text[:-1], 0, [0, 1], targets=text[1:], targets_ask=Ask(top=3))])
    runner.step([Row(text[:16], 0, [2])])
    behind = Row(
        text[16:-1], 16, [2, 3], targets=text[16:], first_target=-1, targets_ask=Ask(top=3)
    )
    (rest,) = runner.step([behind])
    assert rest.scored == whole.scored[15:]
    assert rest.scored_reports == whole.scored_reports[15:]


@pytest.mark.parametrize(
    ("sampling", "ask"),
    [
        (None, Ask(top=3, ids=(4, 9), summary=True, full=True)),
        (GREEDY, None),
        (Sampling(temperature=0.8, top_p=0.9, seed=5), Ask(top=2, is_processed=True, full=True)),
        (Sampling(presence_penalty=1.0, logit_bias=((3, 2.0),), seed=6), Ask(top=2)),
    ],
)
@pytest.mark.parametrize("is_alone", [True, False])
def test_a_row_without_tokens_is_answered_from_the_state_kept_with_its_page(
    runner, sampling, ask, is_alone
):
    text = [random.Random(2).randrange(512) for _ in range(32)]
    mask = bytes([0b10110101] * 64)
    more = {"prompt": text[:30], "output": text[30:]} | ({"allowed": mask} if sampling else {})
    (run,) = runner.step([Row(text, 0, [0, 1], sampling, ask, **more)])
    neighbours = [Row([9, 8], 0, [5], GREEDY), Row(list(range(40)), 0, [6, 7, 8])]
    told = Row([], 32, [0, 1], sampling, ask, **more)
    rows = [told] if is_alone else [neighbours[0], told, neighbours[1], told]
    for row, sampled in zip(rows, runner.step(rows), strict=True):
        assert row is not told or sampled == run
