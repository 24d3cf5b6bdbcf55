"""A hub id `org/name` -> a folder here, by huggingface-hub and its settings (HF_TOKEN ...)."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from weights.checkpoint import CheckpointError

# Weights that are only numbers, and what is needed to read them: never pickles, never code.
WANTED = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja"]
UNWANTED = ["*/*"]  # other formats and precisions in folders of their own


def pull_from_hub(hub_id: str, folder: Path) -> Path:
    """Complete files are not fetched again; without a network an earlier pull is used."""
    try:
        found = snapshot_download(
            hub_id, cache_dir=folder, allow_patterns=WANTED, ignore_patterns=UNWANTED
        )
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0][:300]
        raise CheckpointError(f"{hub_id} could not be fetched from the hub: {reason}") from error
    return Path(found)
