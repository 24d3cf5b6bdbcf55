"""A checkpoint in words before it is served: family, sizes, types, tie, memory needed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from weights.checkpoint import Checkpoint, ModelConfig
from weights.load import load
from weights.tying import tying_of

PRECISIONS = {"float32": 4, "bfloat16": 2}  # bytes a value


def inspect_lines(path: Path) -> list[str]:
    """Reads no tensor but an output matrix, to compare it. Raises CheckpointError."""
    fields = describe(load(path))
    width = max(map(len, fields))
    return [f"{name.ljust(width)}  {value}" for name, value in fields.items()]


def describe(checkpoint: Checkpoint) -> Mapping[str, str]:
    config, special, tie = checkpoint.config, checkpoint.special, checkpoint.tie
    tying = tying_of(config)
    sizes = tying.parameters
    # Keys and values, for each layer; sliding layers keep as many, in pages.
    kept = 2 * config.num_layers * config.num_kv_heads * config.head_dim
    how = {
        "absent": "the file has no output matrix",
        "equal": "the output matrix equals it bit for bit, and is dropped",
    }
    found = {
        "name": checkpoint.name,
        "family": config.family,
        "files": ", ".join(file.name for file in checkpoint.files),
        "sha256": checkpoint.sha256,
        "parameters": f"{sizes:,}",
        "layers": f"{config.num_layers} ({config.layer_types.count('sliding')} sliding)",
        "hidden size": f"{config.hidden_size} (MLP {config.intermediate_size})",
        "heads": f"{config.num_heads} of {config.head_dim}, {config.num_kv_heads} key-value",
        "context": _context(config),
        "vocabulary": f"{config.vocab_size:,} tokens",
        "stored as": ", ".join(f"{kind} x {n}" for kind, n in checkpoint.stored_types.items()),
        "tie": f"{tie.embedding}: {how[tie.reason]}",
        "tied matrix": (
            f"{tying.vocab_size:,} x {tying.width:,} = {tying.matrix:,} parameters,"
            f" {tying.share:.1%} of all; {_bytes(tie.num_bytes_stored)} stored"
        ),
        "tying saves": ", ".join(
            f"{_bytes(tying.saved(width))} in {name}" for name, width in PRECISIONS.items()
        ),
        "begins with": _token(checkpoint, special.bos_id) if special.adds_bos else "nothing",
        "ends at": ", ".join(_token(checkpoint, id_) for id_ in special.stop_ids) or "never",
        "chat template": "yes" if checkpoint.chat_template else "no",
    }
    if checkpoint.precision is not None:
        found["precision"] = f"{checkpoint.precision}, by tiedlm quantize"
    for precision, width in PRECISIONS.items():
        found[f"memory in {precision}"] = (
            f"{_bytes(sizes * width)} ({_bytes(tying.saved(width))} of it the tied matrix)"
        )
    found["KV cache"] = f"{_bytes(kept * PRECISIONS['float32'])} a token, in float32"
    return found


def _context(config: ModelConfig) -> str:
    """LongRoPE has two; the server's --max-context chooses."""
    first = f"{config.max_position_embeddings:,} tokens"
    if config.long_context is None:
        return first
    return f"{first}; with a larger --max-context {config.long_context:,}, by other divisors"


def parameters(checkpoint: Checkpoint) -> int:
    """The tied matrix counts once."""
    return tying_of(checkpoint.config).parameters


def _token(checkpoint: Checkpoint, id_: int | None) -> str:
    text = None if id_ is None else checkpoint.tokenizer.id_to_token(id_)
    return f"{id_} {text!r}"


def _bytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} KB"
