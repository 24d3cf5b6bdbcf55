"""
What each model family writes on disk: its config's fields, its tensors' names and shapes, and the
same for GGUF.

One file a family or two that are alike, each exporting Family entries; a new family is a file here
and a line in FAMILIES.
"""

from __future__ import annotations

from weights.families import (
    bloom,
    cohere,
    falcon,
    gemma,
    gemma3,
    gpt2,
    gpt_neo,
    granite,
    llama,
    mpt,
    olmo,
    opt,
    phi3,
    qwen,
    smollm3,
    stablelm,
    starcoder2,
)
from weights.families.family import Family

FAMILIES: tuple[Family, ...] = (
    llama.FAMILY,
    gpt2.FAMILY,
    gemma3.FAMILY,
    qwen.SECOND,
    qwen.THIRD,
    gemma.FIRST,
    gemma.SECOND,
    smollm3.FAMILY,
    phi3.FAMILY,
    granite.FAMILY,
    olmo.FIRST,
    olmo.SECOND,
    starcoder2.FAMILY,
    stablelm.FAMILY,
    cohere.FIRST,
    cohere.SECOND,
    gpt2.FIRST,
    gpt_neo.FAMILY,
    opt.FAMILY,
    bloom.FAMILY,
    mpt.FAMILY,
    falcon.FAMILY,
)
