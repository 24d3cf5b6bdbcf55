"""A checkpoint of the catalogue as a Hugging Face folder, for what reads nothing else."""

import copy
import sys
from pathlib import Path

import transformers

from tests.reference import transformers_model
from weights.catalog import resolve
from weights.load import load


def write_folder(name: str, folder: Path) -> Path:
    """
    transformers cannot save what its GGUF route has loaded, so the weights go into a fresh model of
    the same config; and its tokenizer for such a file is not used, ours is.
    """
    loaded = transformers_model(name)
    config = copy.deepcopy(loaded.config)
    for own in ("quantization_config", "_name_or_path"):
        if hasattr(config, own):
            delattr(config, own)
    fresh = transformers.AutoModelForCausalLM.from_config(config)
    fresh.load_state_dict(loaded.state_dict())
    fresh.save_pretrained(folder)
    checkpoint = load(resolve(name))
    special = checkpoint.special
    ids = {"bos_token": special.bos_id, "eos_token": special.eos_id, "pad_token": special.pad_id}
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=checkpoint.tokenizer,
        chat_template=checkpoint.chat_template,
        **{k: checkpoint.tokenizer.id_to_token(v) for k, v in ids.items() if v is not None},
    ).save_pretrained(folder)
    return folder


if __name__ == "__main__":
    write_folder(sys.argv[1], Path(sys.argv[2]))
