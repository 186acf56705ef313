"""From what was observed to figures: what an attack adds to what its client costs by itself, and the table."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from scripts.bench.isolation.bystander import Observation, Probe
from scripts.verify.survival.streams import Stream

GOAL_MS = 50.0
"""Beyond the sink, of each figure, on an emulated device. On a model that shares the CPUs it is only reported."""

FIGURES = ("gap_ms", "health_ms", "first_token_ms")


@dataclass(frozen=True, slots=True)
class Harm:
    """What the bystander saw in one turn. Milliseconds, each the longest."""

    gap_ms: float  # between two tokens of its stream
    health_ms: float
    first_token_ms: float  # of new clients
    failed: int = 0  # streams, health checks and new clients that got an error


@dataclass(frozen=True, slots=True)
class Round:
    """A turn under attack, and the one beside the sink."""

    attack: Harm
    sink: Harm
    restarts: int = 0
    statuses: Mapping[int, int] | None = None  # answers to the attacker; 0: none in time
    lingers: bool = False  # work for the attacker goes on though it is gone


@dataclass(frozen=True, slots=True)
class Spread:
    """Of the differences over rounds, in milliseconds."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of request on one server."""

    kind: str
    title: str
    device: str
    emulated: bool
    rounds: tuple[Round, ...]
    broken: str = ""  # why there are fewer rounds than there should be

    def spread(self, figure: str) -> Spread:
        """Raises StatisticsError where there is no round."""
        every = [getattr(each.attack, figure) - getattr(each.sink, figure) for each in self.rounds]
        return Spread(statistics.median(every), min(every), max(every))

    @property
    def failed(self) -> int:
        return sum(each.attack.failed for each in self.rounds)

    @property
    def restarts(self) -> int:
        return sum(each.restarts for each in self.rounds)

    @property
    def lingers(self) -> bool:
        return any(each.lingers for each in self.rounds)

    @property
    def missed(self) -> tuple[str, ...]:
        """Figures beyond the goal, and whatever must not happen at all."""
        beyond = [name for name in FIGURES if self.rounds and self.emulated and self.spread(name).median > GOAL_MS]
        never = {"failed": self.failed, "restarts": self.restarts, "lingers": self.lingers, "broken": self.broken}
        return (*beyond, *(name for name, value in never.items() if value))

    def as_json(self) -> dict[str, Any]:
        spreads = {name: asdict(self.spread(name)) for name in FIGURES} if self.rounds else {}
        return asdict(self) | {"differences": spreads, "missed": list(self.missed)}


def harm(seen: Observation, *, killed: bool = False) -> Harm:
    """Where a stage was `killed`, only what happens to the stream is a failure: a server that starts a stage again
    may say 503."""
    probes = () if killed else (*seen.health, *seen.newcomers)
    failed = sum(bool(probe.error) for probe in probes) + sum(bool(stream.error) for stream in seen.streams)
    return Harm(
        1e3 * longest_gap_s(seen.streams, seen.begin_s, seen.end_s),
        1e3 * _longest_s(seen.health),
        1e3 * _longest_s(seen.newcomers),
        failed,
    )


def longest_gap_s(streams: Sequence[Stream], begin_s: float, end_s: float) -> float:
    """Between two tokens, of which the later came after `begin_s`. A stream that broke lasts until the next one has
    its first token, and one that was open at `end_s` until then; what passes between whole streams is no gap."""
    gaps: list[float] = []
    last: float | None = None
    for stream in streams:
        times = [] if last is None else [last]
        times += stream.times_s
        gaps += [later - earlier for earlier, later in pairwise(times) if later > begin_s]
        last = None if stream.ended else times[-1] if times else None
    if last is not None:
        gaps.append(end_s - last)
    return max(gaps, default=0.0)


def _longest_s(probes: Iterable[Probe]) -> float:
    return max((probe.seconds for probe in probes), default=0.0)


# ---- the table ---------------------------------------------------------------------------------------------------


def table(rows: Sequence[Row]) -> str:
    """Markdown: one per device."""
    devices = dict.fromkeys(row.device for row in rows)
    return "\n\n".join(_table(device, [row for row in rows if row.device == device]) for device in devices)


def _table(device: str, rows: Sequence[Row]) -> str:
    lines = [
        f"| ms beyond the sink, {device} | stream | /health | first token | failed | restarts | answers | |",
        "| --- | ---: | ---: | ---: | ---: | ---: | --- | --- |",
    ]
    return "\n".join([*lines, *map(line, rows)])


def line(row: Row) -> str:
    """Of the table."""
    cells = [_cell(row, name) for name in FIGURES] if row.rounds else ["-"] * len(FIGURES)
    statuses: Counter[int] = Counter()
    for each in row.rounds:
        statuses.update(each.statuses or {})
    answers = ", ".join(f"{status or 'none'}: {count}" for status, count in sorted(statuses.items()))
    verdict = row.broken or ("**missed**" if row.missed else "met" if row.emulated else "")
    if row.lingers:
        verdict += ": its work goes on when the client is gone"
    return f"| {row.title} | {' | '.join(cells)} | {row.failed} | {row.restarts} | {answers} | {verdict} |"


def _cell(row: Row, name: str) -> str:
    spread = row.spread(name)
    text = f"{spread.median:.0f} ({spread.low:.0f} … {spread.high:.0f})"
    return f"**{text}**" if name in row.missed else text
