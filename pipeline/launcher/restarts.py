"""How often and how soon a stage that died is restarted, and the report when the launcher gives up."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import datetime

FIRST_DELAYS_S = (0.0, 0.5)  # from then on twice as long each time
LONGEST_DELAY_S = 30.0
_REMEMBERED = 50


@dataclass(frozen=True, slots=True)
class Death:
    """One entry of the report."""

    when: datetime
    what: str  # "inference (pid 1) was killed by SIGKILL"


class Restarts:
    """Counts deaths in a row by stage: those between which the stage did nothing useful."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._in_a_row: dict[str, int] = {}
        self._deaths: deque[Death] = deque(maxlen=_REMEMBERED)
        self._count = 0

    def on_death(self, name: str, what: str, *, useful: bool) -> float | None:
        """Seconds to wait before the restart, or None: it has died too often. `useful`: it had done some work."""
        self._deaths.append(Death(datetime.now().astimezone(), what))
        self._count += 1
        self._in_a_row[name] = number = 1 if useful else self._in_a_row.get(name, 0) + 1
        return None if number > self.limit else delay_s(number)

    def in_a_row(self, name: str) -> int:
        return self._in_a_row.get(name, 0)

    def report(self) -> str:
        """Every death with its time; several lines."""
        left_out = self._count - len(self._deaths)
        lines = [f"{death.when:%Y-%m-%d %H:%M:%S}  {death.what}" for death in self._deaths]
        first = [f"({left_out} earlier deaths are left out)"] if left_out else []
        return "\n".join(f"  {line}" for line in [*first, *lines])


def delay_s(number: int) -> float:
    """Before the restart after the `number`-th death in a row, from 1."""
    if number <= len(FIRST_DELAYS_S):
        return FIRST_DELAYS_S[number - 1]
    return float(min(FIRST_DELAYS_S[-1] * 2.0 ** (number - len(FIRST_DELAYS_S)), LONGEST_DELAY_S))
