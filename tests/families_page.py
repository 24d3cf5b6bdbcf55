"""
`make families`: measures every tiny checkpoint against transformers and writes docs/families.md, and
the table of docs/tying.md.
"""

import re
import tempfile
from pathlib import Path

import torch

from model.generate import logits
from model.runner import build_transformer
from tests.model.parity import measure, prompt
from tests.model.test_formats import SAYABLE, UNSAYABLE, family_of
from tests.model.tiny_families import TINY, make, save
from tests.published import PUBLISHED
from tests.weights.convert import ARCHITECTURES, convert
from weights.config import read_config
from weights.families import FAMILIES
from weights.fields import Fields
from weights.load import load
from weights.tying import tying_of

DOCS = Path(__file__).parents[1] / "docs"
NUMBER = re.compile(r"\d\.\de-\d\d")
WAYS = ("whole", "chunked", "reference", "GGUF")

MODELS = {
    "bloom": "BLOOM, BLOOMZ",
    "cohere": "Command R, Command R+, Aya 23",
    "cohere2": "Command R7B",
    "falcon": "Falcon, where tied",
    "gemma": "Gemma 1",
    "gemma2": "Gemma 2",
    "gemma3": "Gemma 3 (text)",
    "gpt": "GPT (2018)",
    "gpt2": "GPT-2, DistilGPT-2, DialoGPT",
    "gpt_neo": "GPT-Neo",
    "granite": "Granite 3",
    "llama": "Llama 3.2, SmolLM, SmolLM2",
    "mpt": "MPT",
    "olmo": "OLMo 1B",
    "olmo2": "OLMo 2, where tied",
    "opt": "OPT",
    "phi3": "Phi-4-mini; Phi-3 where tied",
    "qwen2": "Qwen2, Qwen2.5 up to 3B",
    "qwen3": "Qwen3 up to 4B",
    "smollm3": "SmolLM3",
    "stablelm": "StableLM, where tied",
    "starcoder2": "StarCoder 2",
}
NEEDS = {
    "bloom": "ALiBi",
    "cohere2": "window",
    "gemma2": "soft cap, window",
    "gemma3": "window",
    "gpt_neo": "window",
    "mpt": "ALiBi",
    "phi3": "window",
    "qwen2": "window",
    "qwen3": "window",
    "starcoder2": "window",
}
HEAD = """# Families

Written by `make families`; a test holds it to the code.

A checkpoint of any of these loads from a Hugging Face folder (safetensors) by its `model_type`, and from a GGUF file
where GGUF has the architecture: F32, F16, BF16 and every quantised type that the gguf package can dequantise, of which
Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K and Q6_K are tested for each family. All attention runs in the native kernels
(AVX-512, AVX2, portable), with the bits of a row the same alone, in a batch or in chunks.

"""
MIDDLE = f"""
## Parity

The largest difference of a logit from transformers' own class in float32, over a prompt of 200 tokens, on a tiny random
checkpoint with odd sizes ({len(TINY)} of them, below). *whole*: one pass without a cache. *chunked*: in nine chunks through
pages of five tokens, each chunk in a batch with another sequence. *reference*: the same without the native kernels.
*GGUF*: whole, from a file of the same weights. `make test` fails at 1e-4, and where 32 greedy tokens differ.

"""
FOOT = """
## What is refused, and what is bounded

A setting that this code would get wrong is refused at load by the field's name: an unknown `rope_type`, activation or
layer type, ALiBi in Falcon (transformers rounds it to bfloat16 position by position), MPT without ALiBi, OPT without
weights in its norms, SmolLM3 with a window, and so on. CodeGen, GPT-J, GPT-NeoX and Phi-1/2 are refused as untied; LFM2,
Mamba, Jamba and other models whose layers are not all attention by their names.

- **LongRoPE** (Phi-4-mini, Phi-3 128k) is served up to the model's original context, 4,096 tokens. Beyond it the model
  changes to other rotary divisors, for the whole text at once; keys that are already cached would be the wrong ones.
- **StarCoder 2 from GGUF** is served up to 4,096 tokens: the file does not carry the model's window.
- **MPT**: `alibi_bias_max` holds as the model's authors and llama.cpp have it; transformers has 8 whatever it says.
- **SmolLM3, Gemma 2, Gemma 3, Command R7B from GGUF**: which layers are which is not in the file; it is llama.cpp's rule.
- **StableLM from GGUF** with norms of queries and keys is refused; from a folder it runs.
"""
START, END = "<!-- made by `make families` -->", "<!-- end -->"


def of_families():
    yield "| family | models | `model_type` | GGUF | attention needs |"
    yield "|---|---|---|---|---|"
    for family in sorted(FAMILIES, key=lambda family: family.name):
        types = ", ".join(f"`{kind}`" for kind in family.model_types)
        gguf = f"`{family.gguf.architecture}`" if family.gguf else "-"
        needs = NEEDS.get(family.name, "-")
        yield f"| {family.name} | {MODELS[family.name]} | {types} | {gguf} | {needs} |"


def of_parity(measured):
    yield f"| checkpoint | {' | '.join(WAYS)} |"
    yield "|---|" + "---|" * len(WAYS)
    for variant in TINY:
        found = measured(variant)
        cells = " | ".join(f"{found[way]:.1e}" if way in found else "-" for way in WAYS)
        yield f"| {variant} | {cells} |"


def has_gguf(variant):
    return family_of(variant) in ARCHITECTURES and variant not in UNSAYABLE


def unmeasured(variant):
    return dict.fromkeys(WAYS if has_gguf(variant) else WAYS[:-1], 0.0)


def largest_differences(variant):
    theirs = make(variant)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found, _ = measure(theirs, save(theirs, folder))
        if has_gguf(variant):
            found["GGUF"] = gguf_difference(variant, folder / "a.gguf")
    return found


def gguf_difference(variant, path):
    theirs, tokens = make(variant, **SAYABLE.get(family_of(variant), {})), prompt(6)
    convert(family_of(variant), theirs, path)
    with torch.no_grad():
        expected = theirs(torch.tensor([tokens])).logits[0]
    return float((logits(build_transformer(load(path)), tokens) - expected).abs().max())


def of_tying():
    yield "| model | vocabulary | width | parameters | the matrix | saved in bfloat16 |"
    yield "|---|---:|---:|---:|---:|---:|"
    for model in PUBLISHED:
        _, config = read_config(Fields(model.config, model.name))
        tying = tying_of(config)
        yield (
            f"| {model.name} | {tying.vocab_size:,} | {tying.width:,} |"
            f" {tying.parameters / 1e6:,.0f} M | {tying.share:.1%} |"
            f" {tying.saved(2) / 1e6:,.0f} MB |"
        )


def families_page(measured=unmeasured):
    tables = "\n".join(of_families()) + "\n" + MIDDLE + "\n".join(of_parity(measured))
    return HEAD + tables + "\n" + FOOT


def tying_page(page):
    before, rest = page.split(START)
    after = rest.split(END)[1]
    return before + START + "\n" + "\n".join(of_tying()) + "\n" + END + after


if __name__ == "__main__":
    (DOCS / "families.md").write_text(families_page(largest_differences))
    tying = DOCS / "tying.md"
    tying.write_text(tying_page(tying.read_text()))
