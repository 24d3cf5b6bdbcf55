"""
Both real checkpoints against transformers in float32: weights, arithmetic and cache, on eight
varied prompts.
"""

import pytest
import torch

from model.generate import logits
from model.runner import build_runner
from model.step import Ask, Row, Sampling
from tests.reference import NAMES, PROMPTS, transformers_model
from weights.catalog import resolve
from weights.load import load

NUM_TOKENS = 64
NUM_PAGES = 64
GREEDY, BEST_TWO = Sampling(temperature=0.0), Ask(top=2)


@pytest.fixture(scope="module", params=NAMES)
def model(request):
    checkpoint = load(resolve(request.param))
    runner = build_runner(checkpoint, num_pages=NUM_PAGES)
    return checkpoint.tokenizer, runner, transformers_model(request.param)


def test_logits_are_transformers_within_a_thousandth(model):
    tokenizer, runner, theirs = model
    for prompt in PROMPTS:
        tokens = tokenizer.encode(prompt).ids
        with torch.no_grad():
            expected = theirs(torch.tensor([tokens])).logits[0]
        assert torch.allclose(logits(runner.transformer, tokens), expected, atol=1e-3, rtol=0)


def test_64_greedy_tokens_of_a_batch_are_transformers_or_part_at_a_tie(model):
    """All prompts decode together through the paged cache; transformers runs each alone."""
    tokenizer, runner, theirs = model
    prompts = [tokenizer.encode(prompt).ids for prompt in PROMPTS]
    ours, gaps = batched_greedy(runner, prompts)
    for prompt, tokens, gap in zip(prompts, ours, gaps, strict=True):
        with torch.no_grad():
            whole = theirs.generate(
                torch.tensor([prompt]),
                max_new_tokens=NUM_TOKENS,
                do_sample=False,
                eos_token_id=None,
            )[0]
        expected = whole[len(prompt) :].tolist()
        parted = [
            i for i, pair in enumerate(zip(tokens, expected, strict=True)) if len({*pair}) > 1
        ]
        assert not parted or gap[parted[0]] <= 1e-3


def batched_greedy(runner, prompts):
    """-> tokens of each prompt, and by how many nats each was ahead of the second likeliest."""
    each = NUM_PAGES // len(prompts)
    pages = [range(i * each, (i + 1) * each) for i in range(len(prompts))]
    tokens, gaps, done = (
        [list(prompt) for prompt in prompts],
        [[] for _ in prompts],
        [0] * len(prompts),
    )
    for _ in range(NUM_TOKENS):
        rows = [
            Row(text[at:], at, held[: -(-len(text) // runner.page_size)], GREEDY, BEST_TWO)
            for text, at, held in zip(tokens, done, pages, strict=True)
        ]
        done = [len(text) for text in tokens]
        for text, gap, sampled in zip(tokens, gaps, runner.step(rows), strict=True):
            text.append(sampled.drawn.token)
            first, second = sampled.report.top
            gap.append(first.logprob - second.logprob)
    return [text[len(prompt) :] for text, prompt in zip(tokens, prompts, strict=True)], gaps
