"""The table of rings in docs/architecture.md: ``python -m pipeline.wire.reference docs/architecture.md``."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from pipeline.wire.topology import FLOWS

_TABLE = re.compile(r"(<!-- rings: begin[^>]*-->\n).*?(<!-- rings: end -->)", re.DOTALL)


def table() -> str:
    """Markdown."""
    rows = [f"| `{flow.name}` | {flow.producer} | {flow.consumer} | {flow.unit} | {flow.carries} |" for flow in FLOWS]
    return "\n".join(["| ring | from | to | measured in | carries |", "|---|---|---|---|---|", *rows, ""])


def refresh(page: str) -> str:
    """The page with the table as it should be."""
    return _TABLE.sub(lambda part: f"{part[1]}{table()}{part[2]}", page)


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        target = Path(argument)
        target.write_text(refresh(target.read_text(encoding="utf-8")), encoding="utf-8")
