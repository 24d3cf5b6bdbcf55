"""A GGUF file -> the pieces of a Checkpoint, as if it had been a Hugging Face folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from weights.checkpoint import CheckpointError
from weights.config import read_config, refuse_by_name
from weights.families import FAMILIES
from weights.families.family import Change, Gguf
from weights.fields import Fields, shown
from weights.gguf_header import Header, read_header
from weights.gguf_tensors import GgufSource, Stored, canonical
from weights.gguf_tokenizer import read_gguf_tokenizer
from weights.parts import Parts

FREQUENCIES = "rope_freqs.weight"  # Llama 3.1's divisors, worked out by the converter
SHORT, LONG = "rope_factors_short.weight", "rope_factors_long.weight"  # LongRoPE's
DIVISORS = (FREQUENCIES, SHORT, LONG)


def read_gguf(path: Path) -> Parts:
    header = read_header(path)
    metadata = dict(header.metadata)
    gguf = _architecture(metadata)
    words = _config(path, header, metadata, gguf)
    family, config = read_config(Fields(words, "GGUF metadata"))
    tensors = {name: info for name, info in header.tensors.items() if name not in DIVISORS}
    heads: dict[Change, int] = {
        "rotary_q": config.num_heads,
        "rotary_k": config.num_kv_heads,
        "grouped": config.num_kv_heads,
        "stacked": config.num_heads,
    }
    found = read_gguf_tokenizer(metadata)
    return Parts(
        family=family,
        config=config,
        num_tokens=found.num_tokens,
        source=GgufSource(path, canonical(tensors, gguf.names(config), heads, config.head_dim)),
        tokenizer=found.tokenizer,
        special=found.special,
        chat_template=found.chat_template,
        says_tied=None,
        files=(path,),
        words=words,
    )


def _architecture(metadata: Mapping[str, Any]) -> Gguf:
    fields = Fields(metadata, "GGUF metadata")
    fields.must_be("split.count", 0, 1)
    by_name = {family.gguf.architecture: family.gguf for family in FAMILIES if family.gguf}
    refuse_by_name(fields, "general.architecture")
    return fields.choice("general.architecture", by_name)


def _config(path: Path, header: Header, metadata: Mapping[str, Any], gguf: Gguf) -> dict[str, Any]:
    """The family's own metadata, and what only the tensors say, in config.json's words."""
    prefix = f"{gguf.architecture}."
    own = {
        key.removeprefix(prefix): shown(value) if isinstance(value, np.ndarray) else value
        for key, value in metadata.items()
        if key.startswith(prefix)
    }
    embedding = header.tensors.get("token_embd.weight")
    if embedding is None:
        raise CheckpointError("token_embd.weight is missing.")
    facts = {
        "vocab_size": embedding.shape[0],
        "tensors": header.tensors,
        "rope_scaling": _rope_scaling(path, header, own),
    }
    return gguf.config(Fields(own, "GGUF metadata"), Fields(facts, "GGUF tensors"))


def _rope_scaling(path: Path, header: Header, own: Mapping[str, Any]) -> dict[str, Any] | None:
    """Divisors stored as a tensor, or a rule by name."""
    if FREQUENCIES in header.tensors:
        return {"rope_type": "factors", "factors": _divisors(path, header, FREQUENCIES)}
    original = own.get("rope.scaling.original_context_length")
    if SHORT in header.tensors:
        return {
            "rope_type": "longrope",
            "short_factor": _divisors(path, header, SHORT),
            "long_factor": _divisors(path, header, LONG),
            "original_max_position_embeddings": original,
            "attention_factor": own.get("rope.scaling.attn_factor"),
        }
    kind = own.get("rope.scaling.type", "none")
    if kind == "none" and (own.get("rope.scale_linear") or 1.0) == 1.0:
        return None
    return {
        "rope_type": "linear" if kind == "none" else kind,
        "factor": own.get("rope.scaling.factor") or own.get("rope.scale_linear"),
        "original_max_position_embeddings": original,
        "attention_factor": own.get("rope.scaling.attn_factor") if kind == "yarn" else None,
    }


def _divisors(path: Path, header: Header, name: str) -> list[float]:
    if name not in header.tensors:
        raise CheckpointError(f"{name} is missing.")
    stored = Stored(header.tensors[name], "none", 1)
    values = GgufSource(path, {name: stored}).read(name).float()
    if not (torch.isfinite(values).all() and (values > 0).all()):
        raise CheckpointError(f"{name}: a divisor is not a number above 0.")
    listed: list[float] = values.flatten().tolist()
    return listed
