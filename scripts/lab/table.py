"""Figures as text: columns for a terminal, or Markdown."""

from __future__ import annotations

from collections.abc import Sequence

Line = Sequence[object]


def columns(head: Line, lines: Sequence[Line], *, left: int = 1, gap: str = "  ") -> str:
    """The first `left` columns begin at their left edge, all others end at their right one."""
    texts = [list(map(text, line)) for line in (head, *lines)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    return "\n".join(
        gap.join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in texts
    )


def markdown(head: Line, lines: Sequence[Line]) -> str:
    """The first column is text, the others are numbers."""
    rows = (head, ["---", *["---:"] * (len(head) - 1)], *lines)
    return "\n".join("| " + " | ".join(map(text, row)) + " |" for row in rows)


def text(value: object) -> str:
    """Floats with up to three decimals; nothing is a dash."""
    if isinstance(value, float):
        return f"{value:,.3f}".rstrip("0").rstrip(".")
    return "-" if value is None else str(value)
