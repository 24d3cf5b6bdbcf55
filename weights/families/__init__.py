"""
What each model family writes on disk: its config's fields, its tensors' names and shapes, and the
same for GGUF.

One file a family, each exporting one Family; a new family is a file here and a line in FAMILIES.
"""

from __future__ import annotations

from weights.families import gemma3, gpt2, llama
from weights.families.family import Family

FAMILIES: tuple[Family, ...] = (llama.FAMILY, gpt2.FAMILY, gemma3.FAMILY)
