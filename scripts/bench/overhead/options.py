"""How long and how much, and what each section makes of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scripts.bench.overhead.device import Device
from scripts.bench.overhead.measure import Plan
from scripts.bench.overhead.variants import VARIANTS, Variant, choose

_DEMO_LENGTH = 1024


@dataclass(frozen=True, slots=True)
class Options:
    batches: tuple[int, ...] = (1, 8, 32)
    step_ms: float = 22.5
    seconds: float = 2.0
    rounds: int = 5
    slow_variants: tuple[Variant, ...] = choose("ringserve,plain,host,plain-host,sampled,replaced")
    fast_variants: tuple[Variant, ...] = choose("ringserve,replaced")
    ttft_requests: int = 40
    null_tokens: int = 500
    idle_s: float = 10.0
    overrides: tuple[str, ...] = ()

    def changed(self, only: tuple[Variant, ...] | None, **given: Any) -> Options:
        """By what a user has given, which is not None."""
        given |= {"slow_variants": only, "fast_variants": only}
        return dataclasses.replace(self, **{name: value for name, value in given.items() if value is not None})

    def plan(self, section: str) -> Plan:
        """Of steps, fast or demo. Raises ValueError."""
        if section == "demo":
            device, variants = Device(None, _DEMO_LENGTH), choose("ringserve")
        elif section == "fast":
            device, variants = Device(min(5.0, self.step_ms)), self.fast_variants
        else:
            device, variants = Device(self.step_ms), self.slow_variants
        if device.step_ms is not None and device.step_ms <= 0:
            raise ValueError("--step-ms must be above 0; for a device that takes no time see --section null")
        plan = Plan(device, self.batches, self.seconds, self.rounds, variants, self.overrides)
        plan.check()
        return plan

    def check(self, sections: Sequence[str]) -> None:
        """Raises ValueError for what can't be measured."""
        for section in {"steps", *sections} & {"steps", "fast", "demo"}:
            self.plan(section)


DEFAULTS = Options()
QUICK = Options(
    batches=(1, 4),
    step_ms=3.0,
    seconds=0.4,
    rounds=1,
    slow_variants=choose(",".join(VARIANTS)),
    fast_variants=choose("ringserve"),
    ttft_requests=3,
    null_tokens=40,
    idle_s=1.0,
)
