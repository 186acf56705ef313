"""Generated parts of pages are what the declarations say, and what a server exposes."""

from __future__ import annotations

import pytest

from scripts.lab.paths import ROOT
from scripts.tools.reference.__main__ import PAGES, refresh
from scripts.tools.reference.metrics import exposed, tables


@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_up_to_date(name):
    page, parts = (ROOT / "docs" / name).read_text(), PAGES[name]()
    assert refresh(page, parts) == page, "run: python -m scripts.tools.reference"
    assert all(part in page for part in parts.values())


def test_what_is_between_the_marks_is_replaced_and_nothing_else():
    page = "before\n<!-- rings: begin, made -->\nold\n<!-- rings: end -->\nbehind\n"
    assert refresh(page, {"rings": "new\n"}) == page.replace("old", "new")


def test_every_family_has_a_row_with_its_type_and_meaning():
    parts = tables()
    for section, families in exposed().items():
        for family in families:
            name = family.name + "_total" * (family.type == "counter")
            assert f"| `{name}` | {family.type} | " in parts[section]
            assert family.documentation in parts[section]
