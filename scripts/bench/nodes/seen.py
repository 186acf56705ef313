"""What clients see: waits for first tokens, gaps between tokens, and what was lost with nodes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from scripts.bench.routing.requests import Asked

_PER_E = 200  # bins: half a percent wide
_LEAST_MS, _BINS = 0.01, 4000


class Gaps:
    """A histogram of times, in ms."""

    def __init__(self) -> None:
        self._counts = np.zeros(_BINS, np.int64)

    def add(self, ms: float) -> None:
        self._counts[int(_PER_E * math.log(ms / _LEAST_MS)) if ms > _LEAST_MS else 0] += 1

    @property
    def count(self) -> int:
        return int(self._counts.sum())

    def percentile(self, part: float) -> float:
        """Within half a percent; nan if there is none."""
        total = np.cumsum(self._counts)
        if not total[-1]:
            return math.nan
        place = int(np.searchsorted(total, part / 100 * total[-1]))
        return _LEAST_MS * math.exp((place + 0.5) / _PER_E)


@dataclass(slots=True)
class Seen:
    """From `since` on; times in ms. `again`: tokens that were computed again where a stream went on."""

    since: float
    first: list[float] = field(default_factory=list)
    gaps: Gaps = field(default_factory=Gaps)
    prompt_tokens: int = 0
    cached_tokens: int = 0
    requests: int = 0  # that have come
    tokens: int = 0
    moved: int = 0  # streams that went on elsewhere
    again: int = 0
    waits: list[float] = field(default_factory=list)  # of streams whose node was lost, for the next token
    done: list[Asked] = field(default_factory=list)

    def on_started(self, asked: Asked, cached: int) -> None:
        if asked.arrival >= self.since:
            self.prompt_tokens += len(asked.prompt)
            self.cached_tokens += cached

    def on_token(self, asked: Asked, now: float, before: float, *, resumed: bool) -> None:
        """`before`: when its last token was there, or when it arrived."""
        if now < self.since:
            return
        self.tokens += 1
        if resumed:
            self.waits.append(now - before)
        if asked.made == 1:
            if asked.arrival >= self.since:
                self.first.append(now - asked.arrival)
        else:
            self.gaps.add(now - before)


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one run. Times in ms, rates of all nodes together. `busy`: CPUs that the busiest router's work takes, where
    one is there; `cpus`: of all routers. `moved`: streams whose node was lost; `again`: tokens of theirs that were
    computed again; `wait`: for their next one."""

    ttft_p50: float
    ttft_p99: float
    gap_p50: float
    gap_p99: float
    gap_p999: float
    hits: float
    requests_s: float
    tokens_s: float
    busy: float
    cpus: float
    moved: int
    again: int
    wait_p50: float
    wait_p99: float

    @classmethod
    def of(cls, seen: Seen, until: float, busy: Sequence[float]) -> Figures:
        seconds = (until - seen.since) / 1e3
        return cls(
            ttft_p50=_percentile(seen.first, 50),
            ttft_p99=_percentile(seen.first, 99),
            gap_p50=seen.gaps.percentile(50),
            gap_p99=seen.gaps.percentile(99),
            gap_p999=seen.gaps.percentile(99.9),
            hits=seen.cached_tokens / max(seen.prompt_tokens, 1),
            requests_s=seen.requests / seconds,
            tokens_s=seen.tokens / seconds,
            busy=max(busy),
            cpus=sum(busy),
            moved=seen.moved,
            again=seen.again,
            wait_p50=_percentile(seen.waits, 50),
            wait_p99=_percentile(seen.waits, 99),
        )


def _percentile(values: Sequence[float], part: float) -> float:
    return float(np.percentile(values, part)) if values else math.nan
