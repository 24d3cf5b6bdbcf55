"""docs/families.md and docs/tying.md say what the code does."""

from tests.families_page import DOCS, NUMBER, families_page, tying_page


def test_families_page_is_what_the_script_writes_but_for_what_it_measured():
    page = NUMBER.sub("0.0e+00", (DOCS / "families.md").read_text())
    assert families_page(page) == page


def test_no_difference_on_the_page_is_above_what_the_tests_allow():
    found = [float(number) for number in NUMBER.findall((DOCS / "families.md").read_text())]
    assert len(found) > 120
    assert max(found) < 1e-4


def test_table_of_what_tying_saves_is_what_the_script_writes():
    page = (DOCS / "tying.md").read_text()
    assert tying_page(page) == page
