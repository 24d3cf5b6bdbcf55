"""The real checkpoints as transformers reads them: what every number of ours is compared with."""

import copy
from functools import cache
from pathlib import Path

import torch
import transformers

from weights.catalog import resolve

ROOT = Path(__file__).parents[1]
NAMES = ("smollm2-135m-instruct", "gemma-3-270m")
PROMPTS = (
    "The capital of France is",
    "def fibonacci(n):\n    ",
    "Once upon a time, in a village by the sea, there lived",
    "In 1984 there were 365 days, and 2024 had",
    "今天天气很好，我们",
    "Q: What is 17 + 25?\nA:",
    "🙂 is an emoji that means",
    "<html>\n<head>\n<title>",
)


@cache
def transformers_model(name):
    """
    Float32. Its GGUF route reads the weights right; its tokenizer for the same file is not used.
    """
    path = resolve(name)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    )
    return model.eval()


@cache
def exact_model(name):
    """In float64: on some processors float32 is 1.4e-4 nat from it, at tokens of 13 nat."""
    return copy.deepcopy(transformers_model(name)).double()


# English, code, other scripts, emoji, odd spaces.
TEXTS = (
    *PROMPTS,
    "The horse raced past the barn fell.",
    "The old man the boat, and the complex houses married and single soldiers.",
    " A text that begins with a space, and ends with one ",
    "for (int i = 0; i < n; ++i) {\n\tsum += values[i] * 3.14159e-7;\n}\n",
    "SELECT name, COUNT(*) FROM users WHERE age >= 18 GROUP BY name;",
    "月亮代表我的心。春眠不觉晓，处处闻啼鸟。",
    "👩‍👩‍👧 and 🏳️‍🌈 and é and e\u0301 are each one character to a reader 😀😀",
    "Größe, naïve, façade, Ελλάδα, Привет, こんにちは, שלום, مرحبا",
    "a  b\t\tc\n\n\nd     e",
    '{"name": "tiedlm", "version": [0, 1, 0], "ok": true}',
    "She said: \u201cI don't know \u2014 maybe 50% of them?\u201d",
)


@cache
def long_text(num_characters=17_500):
    """Of this project's own licence and pages."""
    names = ("LICENSE", "docs/architecture.md", "README.md")
    return "".join((ROOT / name).read_text() for name in names)[:num_characters]


@cache
def expected(name, tokens):
    """
    As transformers' float64 logits have it -> (N-1,) log-probability, lowest and highest rank (with
    what is within 1e-4 of it taken for equal), and entropy of each of N tokens after the first. A
    part at a time: whole, the logits of a long text are gigabytes.
    """
    model = exact_model(name)
    with torch.no_grad():
        hidden = model.model(torch.tensor([tokens])).last_hidden_state[0, :-1]
        parts = [
            of_logits(model.lm_head(part), torch.tensor(targets))
            for part, targets in zip(hidden.split(128), batched(tokens[1:], 128), strict=True)
        ]
    return tuple(torch.cat(columns) for columns in zip(*parts, strict=True))


def of_logits(logits, targets):
    logprobs = logits.double().log_softmax(-1)
    own = logprobs.gather(-1, targets[:, None])
    low, high = (1 + (logprobs > own + slack).sum(-1) for slack in (1e-4, -1e-4))
    return own[:, 0], low, high, -(logprobs.exp() * logprobs).sum(-1)


def batched(items, size):
    return [items[i : i + size] for i in range(0, len(items), size)]
