"""
Every family against transformers, on small random checkpoints that transformers itself writes.
"""

import pytest
import torch

from model.generate import generate, logits
from model.runner import build_transformer
from tests.weights.tiny import tiny_hf, tiny_model
from weights.load import load

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
ODD = {
    "hidden_size": 72,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 24,
    "vocab_size": 1003,
}
VARIANTS = {
    "llama": ("llama", {}),
    "llama 3.2": ("llama", {"rope_parameters": LLAMA3_ROPE}),
    "llama with biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama with odd sizes": ("llama", ODD),
    "gpt2": ("gpt2", {}),
    "gpt2 with a narrow MLP": ("gpt2", {"n_inner": 80, "activation_function": "gelu"}),
    "gemma3": ("gemma3", {}),
    "gemma3 with another query scale": ("gemma3", {"query_pre_attn_scalar": 50}),
}


@pytest.fixture(scope="module", params=list(VARIANTS))
def both(request, tmp_path_factory):
    family, overrides = VARIANTS[request.param]
    folder = tiny_hf(tmp_path_factory.mktemp("tiny"), family, **(overrides | CONTEXT[family]))
    theirs = tiny_model(family, **(overrides | CONTEXT[family]))
    return build_transformer(load(folder)), theirs


CONTEXT = {
    "llama": {"max_position_embeddings": 256},
    "gemma3": {"max_position_embeddings": 256},
    "gpt2": {"n_positions": 256},
}


def test_logits_of_200_tokens_are_transformers(both):
    ours, theirs = both
    tokens = torch.randint(0, 512, (200,), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = theirs(tokens[None]).logits[0]
    assert torch.allclose(logits(ours, tokens.tolist()), expected, atol=1e-4, rtol=0)


def test_32_greedy_tokens_are_transformers(both):
    ours, theirs = both
    prompt = list(range(5, 25))
    with torch.no_grad():
        expected = theirs.generate(
            torch.tensor([prompt]), max_new_tokens=32, do_sample=False, eos_token_id=None
        )[0]
    assert generate(ours, prompt, 32) == expected[len(prompt) :].tolist()
