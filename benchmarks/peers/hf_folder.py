"""A GGUF file's weights, dequantised, as the Hugging Face folder that other software reads."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import transformers

from weights.load import load


def write(gguf: Path, folder: Path) -> None:
    """transformers cannot save what its own GGUF route has loaded: a fresh model takes over."""
    path = gguf.resolve()
    read = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    )
    config = transformers.LlamaConfig(
        **{
            key: value
            for key, value in read.config.to_dict().items()
            if not key.startswith("quantization") and key not in ("_name_or_path", "dtype")
        }
    )
    model = transformers.LlamaForCausalLM(config)
    model.load_state_dict(read.state_dict())
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(load(path).tokenizer.to_str())


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]))
