"""A replica in simulated time: the server's own scheduler and block manager, before a device that takes the time of
its cost model. Another step is planned while one is computed, as in the server."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model.emulated import CostModel
from pipeline.preprocess.blocks import BlockManager
from pipeline.preprocess.plan import Plan
from pipeline.preprocess.quarantine import Quarantine
from pipeline.preprocess.scheduler import Scheduler
from pipeline.preprocess.sequence import Sequence
from pipeline.wire.request import NOBODY, Owner
from scripts.bench.routing.requests import Asked


@dataclass(frozen=True, slots=True)
class Device:
    cost: CostModel
    rows: int = 32
    token_budget: int = 512
    blocks: int = 4096
    block_size: int = 16
    max_length: int = 8192
    prefix_cache: bool = True


ASCEND = Device(CostModel(fixed_ms=22.353, per_token_ms=0.0926, per_row_ms=0.0019, per_cached_token_ms=0.00089))
"""A 910B4 with a 7B model, as in configs/emulated_910b.yaml, but with four times its blocks."""


class Listener:
    """What the front hears of a request, or nobody."""

    def on_started(self, asked: Asked, cached_tokens: int) -> None:
        """It has a row for the first time."""

    def on_resumed(self, asked: Asked, missing: int) -> None:
        """It has a row behind tokens from elsewhere; so many before the next are computed again."""

    def on_first_token(self, asked: Asked) -> None:
        """Of those that come from this replica."""

    def on_end(self, asked: Asked) -> None:
        """It has all its tokens."""

    def on_step(self, got: list[Asked]) -> None:
        """These have got a token each; some of them the first, or the last."""


@dataclass(frozen=True, slots=True)
class _Step:
    ms: float
    sampled: tuple[tuple[Sequence, int, int], ...]  # with row and epoch


class Replica:
    """`slowness`: its steps take so many times as long. Times in ms."""

    def __init__(self, device: Device, listener: Listener, slowness: float = 1.0) -> None:
        self._device, self._listener, self._slowness = device, listener, slowness
        self._quarantine = Quarantine()
        self._scheduler = Scheduler(
            BlockManager(device.blocks, device.block_size, prefix_cache=device.prefix_cache),
            max_rows=device.rows,
            token_budget=device.token_budget,
            block_table_width=-(-device.max_length // device.block_size),
            ring_slots=4,
            quarantine=self._quarantine,
        )
        self._asked: dict[int, Asked] = {}
        self._waits: set[int] = set()  # for the first token from here
        self._running: _Step | None = None
        self._next: _Step | None = None

    @property
    def aboard(self) -> list[Asked]:
        return list(self._asked.values())

    @property
    def with_rows(self) -> list[int]:
        """Numbers of requests: suspects, if its inference failed now."""
        return [sequence.request for sequence in self._scheduler.aboard]

    @property
    def preemptions(self) -> int:
        return self._scheduler.stats.preemptions

    def submit(
        self, asked: Asked, now: float, *, moved: bool = False, suspect: bool = False, owner: Owner = NOBODY
    ) -> None:
        """If it has tokens already, it goes on behind them. `moved`, `suspect`, `owner`: as in `Submit`."""
        tokens = np.concatenate([asked.prompt, asked.output])
        known = len(asked.prompt) + asked.made
        self._asked[asked.number] = asked
        self._waits.add(asked.number)
        sequence = Sequence(asked.number, tokens, len(asked.prompt), asked.limit, known, arrival_ns=int(now * 1e6))
        sequence.moved, sequence.suspect, sequence.owner = moved, suspect, owner
        if suspect:
            self._quarantine.suspect(sequence)
        self._scheduler.submit(sequence)

    def advance(self) -> float | None:
        """Plan ahead. The time of the step that begins now, if one does; `finish_step` follows when it is over."""
        begun = None
        if self._running is None:
            begun = self._running = self._next or self._plan()
            self._next = None
        if self._running is not None and self._next is None and not self._scheduler.quarantined:
            self._next = self._plan()
        return begun.ms if begun else None

    def finish_step(self, now: float) -> None:
        """Its tokens are there."""
        assert self._running is not None
        step, self._running = self._running, None
        self._listener.on_step([self._on_token(*sampled, now) for sampled in step.sampled if not sampled[0].finished])

    def _on_token(self, sequence: Sequence, row: int, epoch: int, now: float) -> Asked:
        asked, token = self._asked[sequence.request], int(sequence.tokens[sequence.known])
        over = sequence.known + 1 == asked.limit
        self._scheduler.on_tokens(row, epoch, [token], finished=over)
        asked.made += 1
        if asked.made == 1:
            asked.first = now
        if asked.number in self._waits:
            self._waits.remove(asked.number)
            self._listener.on_first_token(asked)
        if over:
            asked.end = now
            del self._asked[asked.number]
            self._listener.on_end(asked)
        return asked

    def _plan(self) -> _Step | None:
        plan = self._scheduler.plan() if self._scheduler.has_work else None
        return self._commit(plan) if plan else None

    def _commit(self, plan: Plan) -> _Step:
        columns, chunks, n = plan.decode, plan.chunks, len(plan.decode)
        cached = int(columns.position[:n].sum()) + sum(chunk.sequence.computed for chunk in chunks)
        tokens = n + sum(chunk.count for chunk in chunks)
        ms = self._slowness * self._device.cost.step_ms(tokens, n + len(chunks), cached)
        sampled = [*columns.sequences, *(chunk.sequence for chunk in chunks if chunk.ends_prompt)]
        step = _Step(ms, tuple((sequence, sequence.row, sequence.epoch) for sequence in sampled))
        self._report_admissions()
        self._scheduler.commit(plan)
        return step

    def _report_admissions(self) -> None:
        for sequence in self._scheduler.admissions:
            asked = self._asked[sequence.request]
            if sequence.row >= 0 and sequence.fresh:
                asked.cached = sequence.cached
                self._listener.on_started(asked, sequence.cached)
            elif sequence.row >= 0:
                self._listener.on_resumed(asked, sequence.known - sequence.computed)
        self._scheduler.admissions.clear()
