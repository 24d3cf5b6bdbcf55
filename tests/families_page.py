"""
`make families`: measures every tiny checkpoint against transformers and writes the tables of
docs/families.md and docs/tying.md.
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
    "falcon": "Falcon-RW; Falcon where tied",
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
    "falcon": "ALiBi (RW)",
    "gemma2": "soft cap, window",
    "gemma3": "window",
    "gpt_neo": "window",
    "mpt": "ALiBi",
    "phi3": "window",
    "qwen2": "window",
    "qwen3": "window",
    "starcoder2": "window",
}
START, END = "<!-- {}, by `make families` -->", "<!-- end of {} -->"


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


def with_table(page, name, lines):
    """`page` with what is between the marks of that name made anew."""
    start, end = START.format(name), END.format(name)
    before, rest = page.split(start)
    return "\n".join([before + start, *lines, end + rest.split(end)[1]])


def families_page(page, measured=unmeasured):
    return with_table(with_table(page, "families", of_families()), "parity", of_parity(measured))


def tying_page(page):
    return with_table(page, "savings", of_tying())


if __name__ == "__main__":
    for path, write in (
        (DOCS / "families.md", lambda page: families_page(page, largest_differences)),
        (DOCS / "tying.md", tying_page),
    ):
        path.write_text(write(path.read_text()))
