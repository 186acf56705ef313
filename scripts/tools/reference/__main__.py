"""Writes the generated parts of the pages in docs/, between their marks: ``python -m scripts.tools.reference``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from scripts.lab.paths import ROOT
from scripts.tools.reference import metrics, rings, settings

PAGES: Mapping[str, Callable[[], Mapping[str, str]]] = {
    "architecture.md": rings.tables,
    "configuration.md": settings.tables,
    "metrics.md": metrics.tables,
}
"""What makes the parts of each page: Markdown by their names."""

_PART = re.compile(r"(<!-- (\w+): begin[^>]*-->\n).*?(<!-- \2: end -->)", re.DOTALL)


def refresh(page: str, parts: Mapping[str, str]) -> str:
    """The page with its generated parts as they should be."""
    return _PART.sub(lambda part: f"{part[1]}{parts[part[2]]}{part[3]}", page)


if __name__ == "__main__":
    for name, tables in PAGES.items():
        target = ROOT / "docs" / name
        target.write_text(refresh(target.read_text(encoding="utf-8"), tables()), encoding="utf-8")
