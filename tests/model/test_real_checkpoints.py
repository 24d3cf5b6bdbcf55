"""
Both real checkpoints against transformers in float32: weights, arithmetic and cache, on eight
varied prompts.
"""

import pytest
import torch

from model.generate import logits
from model.runner import build_runner, build_transformer
from model.step import Row, Sampling
from tests.reference import NAMES, PROMPTS, transformers_model
from weights.catalog import resolve
from weights.load import load

NUM_TOKENS = 64
NUM_PAGES = 64
GREEDY = Sampling(temperature=0.0)


@pytest.fixture(scope="module", params=NAMES)
def model(request):
    checkpoint = load(resolve(request.param))
    runner = build_runner(checkpoint, precision="float32", num_pages=NUM_PAGES)
    return checkpoint.tokenizer, runner, transformers_model(request.param)


def test_logits_are_transformers_within_a_thousandth(model):
    tokenizer, runner, theirs = model
    for prompt in PROMPTS:
        tokens = tokenizer.encode(prompt).ids
        with torch.no_grad():
            expected = theirs(torch.tensor([tokens])).logits[0]
        assert torch.allclose(logits(runner.transformer, tokens), expected, atol=1e-3, rtol=0)


def test_64_greedy_tokens_of_a_batch_are_transformers_or_part_at_a_tie(model):
    """
    All prompts decode together through the paged cache; transformers then judges each token in one
    pass over the whole: greedy means that each is its likeliest after those before it.
    """
    tokenizer, runner, theirs = model
    prompts = [tokenizer.encode(prompt).ids for prompt in PROMPTS]
    for prompt, tokens in zip(prompts, batched_greedy(runner, prompts), strict=True):
        with torch.no_grad():
            logprobs = theirs(torch.tensor([prompt + tokens])).logits[0].log_softmax(-1)
        expected = logprobs[len(prompt) - 1 : -1]
        taken = expected.gather(-1, torch.tensor(tokens)[:, None])[:, 0]
        behind = expected.max(-1).values - taken
        parted = behind.nonzero().flatten().tolist()
        assert not parted or behind[parted[0]] <= 1e-3


def batched_greedy(runner, prompts):
    each = NUM_PAGES // len(prompts)
    pages = [range(i * each, (i + 1) * each) for i in range(len(prompts))]
    tokens, done = [list(prompt) for prompt in prompts], [0] * len(prompts)
    for _ in range(NUM_TOKENS):
        rows = [
            Row(text[at:], at, held[: -(-len(text) // runner.page_size)], GREEDY)
            for text, at, held in zip(tokens, done, pages, strict=True)
        ]
        done = [len(text) for text in tokens]
        for text, sampled in zip(tokens, runner.step(rows), strict=True):
            text.append(sampled.drawn[0].token)
    return [text[len(prompt) :] for text, prompt in zip(tokens, prompts, strict=True)]


@pytest.mark.parametrize("name", NAMES)
def test_blocks_as_stored_give_the_logits_of_float32_within_two_hundredths(name):
    """Weights are exact; what is multiplied by them is rounded to 16 bits, 32 values by a scale."""
    checkpoint = load(resolve(name))
    stored, exact = (build_transformer(checkpoint, each) for each in ("auto", "float32"))
    for prompt in PROMPTS:
        tokens = checkpoint.tokenizer.encode(prompt).ids
        expected = logits(exact, tokens)
        found = logits(stored, tokens)
        assert torch.allclose(found, expected, atol=0.02, rtol=0)
        logprobs = expected.double().log_softmax(-1)
        divergence = (logprobs.exp() * (logprobs - found.double().log_softmax(-1))).sum(-1)
        assert divergence.max() < 1e-5
