"""Weights may be moved to huge pages while they are used."""

import re
from pathlib import Path

import pytest
import torch

from model import huge_pages
from model.huge_pages import use_huge_pages

MEGABYTE = 1 << 20


def in_huge_pages(first, last):
    """Bytes of the mappings that lie between two addresses, from Linux's own account."""
    total, counts = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if found := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            counts = int(found[1], 16) < last and int(found[2], 16) > first
        elif counts and line.startswith("AnonHugePages:"):
            total += 1024 * int(line.split()[1])
    return total


@pytest.mark.skipif(not huge_pages._page_bytes(), reason="this system has huge pages switched off")
def test_what_is_moved_stays_what_it_is_and_lies_in_huge_pages():
    whole = torch.arange(8 * MEGABYTE, dtype=torch.int32)
    first = whole.data_ptr()
    parts = {first + i * 65536: 65536 for i in range(whole.nbytes // 65536)}
    moved = use_huge_pages(parts)
    assert whole.nbytes - 4 * MEGABYTE <= moved <= whole.nbytes
    assert torch.equal(whole, torch.arange(8 * MEGABYTE, dtype=torch.int32))
    assert in_huge_pages(first, first + whole.nbytes) >= moved


def test_memory_with_gaps_is_left_as_it_is():
    """A huge page over a gap would make what lies there resident."""
    whole = torch.zeros(4 * MEGABYTE, dtype=torch.int32)
    parts = {whole.data_ptr() + i * MEGABYTE: 4096 for i in range(16)}
    assert use_huge_pages(parts) == 0


def test_where_they_are_switched_off_nothing_is_asked_for(tmp_path, monkeypatch):
    (tmp_path / "enabled").write_text("always madvise [never]\n")
    (tmp_path / "hpage_pmd_size").write_text("2097152\n")
    whole = torch.zeros(4 * MEGABYTE, dtype=torch.int32)
    for folder in (tmp_path, tmp_path / "missing"):
        monkeypatch.setattr(huge_pages, "SETTINGS", folder)
        assert use_huge_pages({whole.data_ptr(): whole.nbytes}) == 0
