"""The real checkpoints as transformers reads them: what every number of ours is compared with."""

from functools import cache

import torch
import transformers

from weights.catalog import resolve

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
