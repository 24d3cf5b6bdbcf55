"""The table of docs/clients.md, read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
REQUIREMENTS = Path(__file__).parent / "requirements"
PAGE = ROOT / "docs" / "clients.md"


@dataclass(frozen=True)
class Row:
    client: str  # as its program, its requirements and its virtual environment are called
    version: str
    works: tuple[str, ...]


def rows() -> list[Row]:
    """Of lines such as `| name | 1.2 | chat, streamed chat | how |`."""
    found = []
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| ") and len(cells) == 4 and re.match(r"\d", cells[1]):
            found.append(Row(cells[0], cells[1], tuple(cells[2].split(", "))))
    return found
