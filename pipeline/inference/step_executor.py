"""Executes steps: takes a descriptor, runs the model on views of its slot, publishes what came out.

Everything is prepared before the first step: arrays over every slot of every ring, and the runner's inputs over each
step slot in each bucket. A step then creates no object per row, and copies nothing but the ids of its decode rows.

Where every row of a step takes the argmax, inference knows the tokens itself and does not wait for sampling before it
starts the next step. Sampling still decides what is sent: a row that it ends, or that has no token, is at most
computed once more for nothing, as with any row that ends.

The device is not kept waiting: a step whose ids are known is started before the results of the one before it are even
published.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

import ipc
from model.runner import Bucket, Runner, StepInputs
from pipeline.inference._board import TokenBoard
from pipeline.stats import Counters, InferenceCounter, RingEnds
from pipeline.wire.step import (
    Head,
    Int32,
    LogitsColumns,
    Shapes,
    Stamp,
    StepColumns,
    TokensColumns,
    logits_layout,
    step_layout,
    tokens_layout,
)

_NS = time.CLOCK_MONOTONIC


@dataclass(slots=True)
class Step:
    """A slot of the step ring; there is one object for each, and it serves every step that comes by that slot."""

    views: StepColumns
    bindings: dict[tuple[int, int], Any]  # the runner's, by the bucket's tokens and rows
    ids: TokenBoard  # the way of its decode rows' ids from the board
    slot: ipc.ReadSlot | None = None  # while it is held
    head: list[int] = field(default_factory=list)
    taken_ns: int = 0
    launched_ns: int = 0


@dataclass(frozen=True, slots=True)
class InferenceRings:
    """The ends of the rings around inference; they belong to the caller."""

    steps: ipc.SlotConsumer
    tokens: ipc.SlotConsumer  # which token sampling chose for which row
    logits: ipc.SlotProducer


class StepExecutor:
    """`run_step` once per descriptor, in the order of the ring."""

    def __init__(
        self,
        runner: Runner,
        rings: InferenceRings,
        shapes: Shapes,
        counters: Counters | None = None,
        ends: RingEnds | None = None,
    ) -> None:
        self.runner = runner
        self.steps_done = 0
        self._counters, self._ends, self._rings = counters, ends, rings
        self._board: Int32 = np.zeros(shapes.max_rows, np.int32)
        self._board_step = 0  # every token up to this step's is on the board
        self._steps = [self._step_of(views) for views in step_layout(shapes).resident_views(rings.steps)]
        self._token_views: list[TokensColumns] = tokens_layout(shapes).resident_views(rings.tokens)
        self._sampled_boards = [TokenBoard(self._board, views.rows, views.token_ids) for views in self._token_views]
        self._logits_views: list[LogitsColumns] = logits_layout(shapes).resident_views(rings.logits)
        self._argmax_boards = [TokenBoard(self._board, views.rows, views.token_ids) for views in self._logits_views]
        self._argmax: NDArray[np.intp] = np.zeros(shapes.max_rows, np.intp)
        self._next: Step | None = None  # taken from the ring, but not begun
        self._running: Step | None = None  # on the device

    def _step_of(self, views: StepColumns) -> Step:
        bindings = {
            (bucket.tokens, bucket.rows): self.runner.bind(_inputs(views, bucket))
            for bucket in self.runner.facts.buckets
        }
        return Step(views, bindings, TokenBoard(self._board, views.rows, views.input_ids))

    def run_step(self) -> None:
        """Bring the next step to its end, and begin the one after it, if that is there and its ids are known.

        Raises PeerDied, RingClosed, and what the runner raises.
        """
        step = self._running or self._begin(self._next or self._take(self._rings.steps.read()))
        slot = self._rings.logits.reserve()
        out = self._logits_views[slot.index]
        _describe(step.views, out, step.head[Head.LIVE_ROWS])
        self._fetch(step.head, out)
        computed_ns = time.clock_gettime_ns(_NS)
        if step.head[Head.ALL_ARGMAX]:
            self._foresee(step.head, slot.index, out)
        try:
            self._begin_early()
        finally:  # the next step may be what the device can't bear: this one's results are there all the same
            out.stamps[Stamp.TAKEN : Stamp.COMPUTED + 1] = step.taken_ns, step.launched_ns, computed_ns
            slot.publish()
        self._done(step)

    # ---- the beginning of a step ----------------------------------------------------------------------------

    def _begin_early(self) -> None:
        """The next step, before this one's results are published."""
        self._running = None
        slot = self._rings.steps.try_read()
        self._next = None if slot is None else self._take(slot)
        if self._next is not None and self._next.head[Head.DEPENDS_ON_STEP] <= self._board_step:
            self._running = self._begin(self._next)

    def _take(self, slot: ipc.ReadSlot) -> Step:
        step = self._steps[slot.index]
        step.taken_ns = time.clock_gettime_ns(_NS)
        step.slot = slot
        step.head = step.views.head.tolist()
        return step

    def _begin(self, step: Step) -> Step:
        """Fill in the ids and start the device."""
        self._next, head = None, step.head
        self._await_tokens(head[Head.DEPENDS_ON_STEP])
        step.ids.gather(head[Head.DECODE_ROWS])
        step.launched_ns = time.clock_gettime_ns(_NS)
        self.runner.launch(step.bindings[head[Head.TOKENS], head[Head.ROWS]])
        return step

    def _await_tokens(self, needs: int) -> None:
        """Decode rows bring the token that was sampled last; where it is known here, the board may lag behind."""
        while (slot := self._rings.tokens.try_read()) is not None:
            self._read_board(slot)
        while self._board_step < needs:
            self._read_board(self._rings.tokens.read())

    def _read_board(self, slot: ipc.ReadSlot) -> None:
        views = self._token_views[slot.index]
        step = int(views.head[Head.STEP])
        if step > self._board_step:  # else nobody in the steps since has had one of those tokens before
            self._sampled_boards[slot.index].scatter(int(views.head[Head.LIVE_ROWS]))
            self._board_step = step
        slot.release()

    # ---- its end --------------------------------------------------------------------------------------------

    def _fetch(self, head: list[int], out: LogitsColumns) -> None:
        rows = head[Head.ROWS]
        if not head[Head.ARGMAX_ON_DEVICE]:
            self.runner.fetch(out.logits[:rows])
            return
        self.runner.fetch_best(out.token_ids[:rows], out.logprobs[:rows] if head[Head.LOGPROBS] else None)
        if self._counters is not None:
            self._counters.add(InferenceCounter.GREEDY_STEPS)

    def _foresee(self, head: list[int], index: int, out: LogitsColumns) -> None:
        """Put this step's tokens on the board: the argmax of every row."""
        rows = head[Head.LIVE_ROWS]
        if head[Head.ARGMAX_ON_DEVICE]:
            self._argmax_boards[index].scatter(rows)
        else:
            self._board[out.rows[:rows]] = np.argmax(out.logits[:rows], axis=1, out=self._argmax[:rows])
        self._board_step = head[Head.STEP]

    def _done(self, step: Step) -> None:
        assert step.slot is not None
        step.slot.release()
        step.slot = None
        self.steps_done += 1
        if self._counters is not None:
            self._counters.add(InferenceCounter.STEPS)
        if self._ends is not None:
            self._ends.copy()


def _describe(views: StepColumns, out: LogitsColumns, rows: int) -> None:
    """What sampling has to know of the step: its rows, not its tokens."""
    out.head[:] = views.head
    out.stamps[:] = views.stamps
    out.rows[:rows] = views.rows[:rows]
    out.epochs[:rows] = views.epochs[:rows]
    out.sampled[:rows] = views.sampled[:rows]
    out.lengths[:rows] = views.valid_length[:rows]


def _inputs(views: StepColumns, bucket: Bucket) -> StepInputs:
    """The leading part of a slot's arrays that a bucket uses."""
    t, b = bucket.tokens, bucket.rows
    return StepInputs(
        input_ids=views.input_ids[:t],
        positions=views.positions[:t],
        slot_mapping=views.slot_mapping[:t],
        valid_length=views.valid_length[:b],
        q_seq_lens=views.q_seq_lens[:b],
        gather_index=views.gather_index[:b],
        block_tables=views.block_tables[:b],
    )
