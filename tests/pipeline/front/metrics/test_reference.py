"""The tables of docs/metrics.md are made from what a server exposes."""

from __future__ import annotations

from pipeline.front.metrics.reference import exposed, refresh, tables
from scripts.lab.paths import ROOT


def test_the_page_of_metrics_is_up_to_date():
    page = (ROOT / "docs" / "metrics.md").read_text()
    assert refresh(page) == page, "run: python -m pipeline.front.metrics.reference docs/metrics.md"


def test_what_is_between_the_marks_is_replaced_and_nothing_else():
    page = "before\n<!-- rings: begin, made -->\nold\n<!-- rings: end -->\nbehind\n"
    assert refresh(page) == page.replace("old\n", tables()["rings"])


def test_every_family_has_a_row_with_its_type_and_meaning():
    parts = tables()
    for section, families in exposed().items():
        for family in families:
            name = family.name + "_total" * (family.type == "counter")
            assert f"| `{name}` | {family.type} | " in parts[section]
            assert family.documentation in parts[section]
