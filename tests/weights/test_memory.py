"""A small twin of `make memory`."""

import pytest
import torch

from benchmarks.memory import LIMIT, generate, peak, stored_bytes

SIZE = 300_000_000  # of which ten per cent is well above what an allocator keeps


@pytest.mark.parametrize(("family", "shard"), [("llama", "40MB"), ("gpt2", "1GB")])
def test_loading_a_folder_peaks_under_its_size_and_a_tenth(tmp_path, family, shard):
    # A tensor is held twice while it is transposed: narrow ones, that one is not a tenth of all.
    tiny = generate(family, torch.float32, "1GB", tmp_path / "tiny", 1, width=512)
    folder = generate(family, torch.float32, shard, tmp_path / "folder", SIZE, width=512)
    assert peak(folder, tiny, torch.float32) < LIMIT * stored_bytes(folder)
