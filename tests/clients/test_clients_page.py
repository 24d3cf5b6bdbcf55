"""docs/clients.md: each row has a pinned version, and a program that does all that it lists."""

import ast

import pytest

from tests.clients.table import REQUIREMENTS, ROOT, rows


def test_every_client_has_a_row():
    assert sorted(row.client for row in rows()) == sorted(
        path.stem for path in REQUIREMENTS.glob("*.txt")
    )
    assert len(rows()) >= 12


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.client)
def test_a_row_is_what_its_program_does_with_its_version(row):
    program = ROOT / f"tests/clients/programs/with_{row.client.replace('-', '_')}.py"
    tests = [
        node.name.removeprefix("test_").replace("_", " ")
        for node in ast.parse(program.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]
    assert list(row.works) == tests
    pins = (REQUIREMENTS / f"{row.client}.txt").read_text().split()
    assert any(pin.endswith(f"=={row.version}") for pin in pins)
