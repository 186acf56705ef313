"""What a benchmark's figures are judged by."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Goal:
    """`measured` None: this run can't tell."""

    what: str
    measured: float | None
    goal: float
    unit: str
    at_least: bool = False
    note: str = ""

    @property
    def met(self) -> bool | None:
        if self.measured is None:
            return None
        return self.measured >= self.goal if self.at_least else self.measured <= self.goal

    @property
    def text(self) -> str:
        if self.measured is None:
            return f"not measured: {self.what}"
        bound = "at least" if self.at_least else "at most"
        verdict = "met   " if self.met else "MISSED"
        return (
            f"{verdict}  {self.what}: {_number(self.measured)} {self.unit} ({bound} {_number(self.goal)}){self.note}"
        )

    def told(self) -> dict[str, Any]:
        """As JSON has it."""
        row = asdict(self) | {"met": self.met}
        del row["note"]
        return row


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
