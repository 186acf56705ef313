"""The sections of the benchmark, so that a run can be split."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from scripts.bench.overhead.context import measure_context
from scripts.bench.overhead.device import Device
from scripts.bench.overhead.figures import figures, goals
from scripts.bench.overhead.footprint import measure_footprint
from scripts.bench.overhead.measure import Plan, Say, measure
from scripts.bench.overhead.null import measure_null
from scripts.bench.overhead.tables import Row, plain_table, steps_table
from scripts.bench.overhead.ttft import measure_ttft
from scripts.bench.overhead.variants import choose

DEMO_LENGTH = 1024


@dataclass(frozen=True, slots=True)
class Options:
    """How long and how much."""

    batches: tuple[int, ...]
    step_ms: float
    seconds: float
    rounds: int
    slow_variants: str
    fast_variants: str
    ttft_requests: int
    null_tokens: int
    idle_s: float
    overrides: tuple[str, ...] = ()

    def changed(
        self,
        *,
        batches: str | None,
        seconds: float | None,
        rounds: int | None,
        only: str | None,
        step_ms: float | None,
        overrides: Sequence[str],
    ) -> Options:
        """What a user has given. Raises ValueError."""
        given = {
            "batches": None if batches is None else tuple(int(word) for word in batches.split(",")),
            "seconds": seconds,
            "rounds": rounds,
            "slow_variants": only,
            "fast_variants": only,
            "step_ms": step_ms,
        }
        there = {name: value for name, value in given.items() if value is not None}
        return dataclasses.replace(self, overrides=(*overrides,), **there)  # type: ignore[arg-type]

    def plan(self, section: str) -> Plan:
        """Of steps, fast or demo. Raises ValueError."""
        if section == "demo":
            device, variants = Device(None, DEMO_LENGTH), "ringserve"
        elif section == "fast":
            device, variants = Device(min(5.0, self.step_ms)), self.fast_variants
        else:
            device, variants = Device(self.step_ms), self.slow_variants
        if device.step_ms is not None and device.step_ms <= 0:
            raise ValueError("--step-ms must be above 0; for a device that takes no time see --section null")
        plan = Plan(device, self.batches, self.seconds, self.rounds, choose(variants), self.overrides)
        plan.check()
        return plan

    def check(self, sections: Sequence[str]) -> None:
        """Raises ValueError for what can't be measured."""
        for section in {"steps", *sections} & {"steps", "fast", "demo"}:
            self.plan(section)


def default_options() -> Options:
    slow = "ringserve,plain,host,plain-host,sampled,replaced"
    return Options((1, 8, 32), 22.5, 2.0, 5, slow, "ringserve,replaced", 40, 500, 10.0)


def quick_options() -> Options:
    every = "ringserve,plain,host,plain-host,completions,sampled,replaced"
    return Options((1, 4), 3.0, 0.4, 1, every, "ringserve", 3, 40, 1.0)


@dataclass(frozen=True, slots=True)
class Section:
    run: Callable[[Options, Path, Say], Row]
    table: Callable[[Row], str]


def _cells(section: str) -> Callable[[Options, Path, Say], Row]:
    def run(options: Options, directory: Path, say: Say) -> Row:
        plan = options.plan(section)
        rows = figures(measure(plan, directory, say), plan)
        return {
            "device": plan.device.name,
            "step_ms": plan.device.step_ms,
            "seconds": plan.seconds,
            "rounds": plan.rounds,
            "overrides": list(plan.overrides),
            "results": [dataclasses.asdict(row) for row in rows],
            "goals": [goal.told() for goal in goals(rows, plan.device.step_ms)],
        }

    return run


def _context(options: Options, directory: Path, say: Say) -> Row:
    return measure_context(max(1.5, options.seconds), options.rounds, directory, say)


def _ttft(options: Options, directory: Path, say: Say) -> Row:
    return measure_ttft(options.ttft_requests, directory, say)


def _null(options: Options, directory: Path, say: Say) -> Row:
    return measure_null(options.null_tokens, options.rounds, directory, say)


def _footprint(options: Options, directory: Path, say: Say) -> Row:
    return measure_footprint(options.idle_s, directory, say)


SECTIONS: Mapping[str, Section] = MappingProxyType(
    {
        "steps": Section(_cells("steps"), steps_table),
        "fast": Section(_cells("fast"), steps_table),
        "demo": Section(_cells("demo"), steps_table),
        "context": Section(_context, plain_table),
        "ttft": Section(_ttft, plain_table),
        "null": Section(_null, plain_table),
        "footprint": Section(_footprint, plain_table),
    }
)


def chosen(names: str) -> tuple[str, ...]:
    """Raises ValueError for an unknown one."""
    wanted = tuple(names.split(","))
    if unknown := [name for name in wanted if name not in SECTIONS]:
        raise ValueError(f"unknown section {unknown[0]!r}; there are {', '.join(SECTIONS)}")
    return wanted
