"""The server's own scheduler in simulated time: steps take what a cost model says, and nothing is computed.

As in the server, one step computes and the next one is planned meanwhile; results are known when a step is done.
"""

from __future__ import annotations

import heapq
from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count

import numpy as np

from model.emulated import CostModel
from pipeline.preprocess.blocks import BlockManager
from pipeline.preprocess.scheduler import Scheduler
from pipeline.preprocess.sequence import Sequence
from pipeline.wire.request import Owner
from scripts.bench.routing.replica import ASCEND

TOKEN = 5
_UNDER_WAY = 2  # steps


@dataclass(frozen=True, slots=True)
class Machine:
    """configs/emulated_910b.yaml: Llama-2-7B on an Ascend 910B4."""

    rows: int = 32
    blocks: int = 1024
    block_size: int = 16
    token_budget: int = 256
    width: int = 256
    cost: CostModel = ASCEND.cost

    def scheduler(self) -> Scheduler:
        blocks = BlockManager(self.blocks, self.block_size, prefix_cache=False)
        return Scheduler(
            blocks, max_rows=self.rows, token_budget=self.token_budget, block_table_width=self.width, ring_slots=4
        )


@dataclass(frozen=True, slots=True)
class Asked:
    """A request: when it arrives, whose it is, and its tokens."""

    at_s: float
    key: int
    prompt: int
    output: int
    weight: float = 1.0
    priority: int = 0


@dataclass(slots=True)
class Seen:
    """Of one run. Times of first tokens are those since arrival; tokens are generated ones, with their times."""

    first_s: defaultdict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    tokens: defaultdict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    preemptions: int = 0
    steps: int = 0

    def rate(self, key: int, begin_s: float, end_s: float) -> float:
        """Tokens per second."""
        times = np.array(self.tokens[key])
        return float(((times >= begin_s) & (times < end_s)).sum()) / (end_s - begin_s)


@dataclass(slots=True)
class _Step:
    cost_s: float
    sampled: list[tuple[Sequence, int, int]]  # with row and epoch


class Simulation:
    """`fair` false: all requests are of one key, as without keys."""

    def __init__(self, machine: Machine, asked: Iterable[Asked], *, fair: bool) -> None:
        self._machine, self._fair = machine, fair
        self._scheduler, self.seen = machine.scheduler(), Seen()
        self._arriving = [(one.at_s, number, one) for number, one in enumerate(asked)]
        heapq.heapify(self._arriving)
        self._number = count(1)
        self._asked: dict[int, Asked] = {}
        self._under_way: deque[_Step] = deque()
        self._now = 0.0

    def run(self, until_s: float) -> Seen:
        done_at = 0.0
        while self._now < until_s:
            self._arrive()
            while len(self._under_way) < _UNDER_WAY and self._plan():
                pass
            if not self._under_way:
                if not self._arriving:
                    break
                self._now = done_at = self._arriving[0][0]
                continue
            done_at = max(done_at, self._now) + self._under_way[0].cost_s
            self._wait(done_at)
            self._finish(self._under_way.popleft())
        self.seen.preemptions = self._scheduler.stats.preemptions
        return self.seen

    def _wait(self, done_at: float) -> None:
        """Until the step that computes is done. What arrives meanwhile may be in the step after the next one."""
        while self._arriving and self._arriving[0][0] < done_at:
            self._now = self._arriving[0][0]
            self._arrive()
            while len(self._under_way) < _UNDER_WAY and self._plan():
                pass
        self._now = done_at

    def _arrive(self) -> None:
        while self._arriving and self._arriving[0][0] <= self._now:
            asked = heapq.heappop(self._arriving)[-1]
            request, limit = next(self._number), asked.prompt + asked.output
            self._asked[request] = asked
            owner = Owner(asked.key, asked.weight, asked.priority) if self._fair else Owner()
            self._scheduler.submit(
                Sequence(
                    request,
                    np.full(limit, TOKEN, np.int32),
                    asked.prompt,
                    limit,
                    known=asked.prompt,
                    arrival_ns=request,
                    owner=owner,
                )
            )

    def _plan(self) -> bool:
        plan = self._scheduler.plan()
        if plan is None:
            return False
        machine, rows = self._machine, list(plan.decode.sequences)
        tokens = len(rows) + sum(chunk.count for chunk in plan.chunks)
        cached = sum(one.computed for one in rows) + sum(chunk.sequence.computed for chunk in plan.chunks)
        sampled = [*rows, *(chunk.sequence for chunk in plan.chunks if chunk.ends_prompt)]
        ms = machine.cost.step_ms(tokens, len(rows) + len(plan.chunks), cached)
        self._under_way.append(_Step(ms / 1e3, [(one, one.row, one.epoch) for one in sampled]))
        self._scheduler.commit(plan)
        self._scheduler.admissions.clear()
        self.seen.steps += 1
        return True

    def _finish(self, step: _Step) -> None:
        for sequence, row, epoch in step.sampled:
            if sequence.finished:
                continue
            asked = self._asked[sequence.request]
            if sequence.known == sequence.prompt:
                self.seen.first_s[asked.key].append(self._now - asked.at_s)
            self.seen.tokens[asked.key].append(self._now)
            over = sequence.known + 1 == sequence.limit
            self._scheduler.on_tokens(row, epoch, [TOKEN], finished=over)
