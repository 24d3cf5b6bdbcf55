"""docs/security.md promises by naming tests: each of them is there."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/security.md").read_text()
NAMED = re.findall(r"`(test_\w+\.py)::(test_\w+)`", PAGE)


def functions_of(name):
    """By the files of that name, of which there may be several."""
    trees = [ast.parse(path.read_text()) for path in (ROOT / "tests").rglob(name)]
    return {node.name for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_test_that_the_page_names_exists():
    assert len(NAMED) > 50
    missing = [f"{file}::{name}" for file, name in NAMED if name not in functions_of(file)]
    assert missing == []


def test_every_promise_and_every_class_names_a_test():
    tables = PAGE.split("## Promises")[1].split("## What uvicorn")[0]
    rows = [row for row in tables.splitlines() if row.startswith("| ") and "---" not in row]
    told = [row for row in rows if not row.startswith(("| promise |", "| class |"))]
    assert len(told) > 25
    assert [row for row in told if "::test_" not in row] == []


def test_every_file_that_the_page_names_exists():
    folders = ("", "server", "tests", "weights")
    for name in re.findall(r"`((?:[a-z_]+/)*[a-z_]+\.py)`", PAGE):
        assert any((ROOT / folder / name).exists() for folder in folders), name
