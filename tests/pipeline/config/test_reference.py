"""The page of all keys."""

from __future__ import annotations

from pipeline.config.reference import refresh
from tests.pipeline.config.helpers import ROOT


def test_the_page_is_what_the_declarations_say():
    page = (ROOT / "docs" / "configuration.md").read_text()
    assert refresh(page) == page, "run: python -m pipeline.config.reference docs/configuration.md"
