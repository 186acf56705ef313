"""Executes steps: takes a descriptor, runs the model, publishes what came out.

Everything is prepared before the first step: arrays over every slot of every ring, and the runner's inputs for each
step slot in each bucket. A step then creates no object per row.

Where every row of a step takes the argmax, or draws from the device's candidates, inference knows the tokens itself
and does not wait for sampling before it starts the next step. Sampling still decides what is sent: a row that it
ends, or that has no token, is at most computed once more for nothing, as with any row that ends. Rows whose token
sampling must choose make the step wait for it, and nothing else: the others' logits stay on the device.

A step whose rows may carry drafts waits for sampling's record of the step before, which has them; how many tokens a
step with drafts yields, sampling's record of that step says.

The device is not kept waiting: a step whose ids are known is started before the results of the one before it are even
published.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Never

import numpy as np
from numpy.typing import NDArray

import ipc
from model.runner import Bucket, Runner
from pipeline.inference._step import StepArrays, TokenRecord
from pipeline.inference.compilation import IDLE_S, Compilation
from pipeline.inference.draws import Draws
from pipeline.inference.step_arrays import Outcome, StepInputArrays, make_board, own_memory
from pipeline.inference.unread import Unread
from pipeline.stats import Counters, InferenceCounter, RingEnds
from pipeline.wire.step import (
    Choice,
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
_DEPENDS_ON_STEP = int(Head.DEPENDS_ON_STEP)  # of an enumeration it would be looked up where every lookup counts
_DRAFTS = int(Head.DRAFTS)


@dataclass(slots=True)
class Step:
    """A slot of the step ring; there is one object for each, and it serves every step that comes by that slot."""

    views: StepColumns
    words: memoryview  # the header's
    filled: StepArrays
    sample_row: Int32  # of each sampled position: its row in the step
    fetched: Int32  # sampled positions whose logits are wanted, once they are described
    bindings: list[Any]  # the runner's, by bucket
    slot: ipc.ReadSlot | None = None  # while it is held
    head: list[int] = field(default_factory=list)  # once it is on the device
    taken_ns: int = 0
    launched_ns: int = 0


@dataclass(frozen=True, slots=True)
class InferenceRings:
    """The ends of the rings around inference; they belong to the caller. ``logits``: of ranks but the first one,
    whose results nobody reads, a place of their own."""

    steps: ipc.SlotConsumer
    tokens: ipc.SlotConsumer  # which token sampling chose for which row
    logits: ipc.SlotProducer | Unread


class StepExecutor:
    """`run_step` once per descriptor, in the order of the ring."""

    def __init__(
        self,
        runner: Runner,
        rings: InferenceRings,
        shapes: Shapes,
        counters: Counters | None = None,
        ends: RingEnds | None = None,
        compilation: Compilation | None = None,
    ) -> None:
        """``compilation``: of the runner's buckets; None: all are compiled."""
        self.runner = runner
        self._shapes, self._compilation = shapes, compilation
        self.steps_done = 0
        self._counters, self._ends, self._rings = counters, ends, rings
        self._board = make_board(shapes)
        self._try_read_step = rings.steps.try_read
        self._board_step = 0  # every token up to this step's is on the board
        self._record_step = 0  # and every draft of sampling's up to this one's
        self._chosen_by_sampling = 0  # why it must choose tokens of the last step: see Choice
        self._open_buckets()
        self._token_views: list[TokensColumns] = tokens_layout(shapes).resident_views(rings.tokens)
        self._records = [
            TokenRecord(views.rows, views.lengths, views.counts, views.ids) for views in self._token_views
        ]
        self._outcomes = [Outcome(views) for views in _outcome_views(rings.logits, shapes)]
        self._draws = Draws(shapes, counters)
        self._argmax: NDArray[np.intp] = np.zeros(shapes.logit_rows, np.intp)
        self._next: Step | None = None  # taken from the ring, but not begun
        self._running: Step | None = None  # on the device

    def _open_buckets(self) -> None:
        """Steps for the buckets that are compiled now; none may be under way."""
        facts, compilation, ring = self.runner.facts, self._compilation, self._rings.steps
        buckets = facts.buckets if compilation is None else compilation.ready
        views = step_layout(self._shapes).resident_views(ring)
        self._steps = [self._step_of(each, facts.block_size, buckets) for each in views]

    def _step_of(self, views: StepColumns, block_size: int, buckets: Sequence[Bucket]) -> Step:
        arrays = StepInputArrays(views, self._board, self._shapes, block_size, buckets)
        bindings = [self.runner.bind(arrays.inputs(bucket)) for bucket in buckets]
        return Step(views, views.head.data, arrays.filled, arrays.sample_row, arrays.fetched, bindings)

    def run(self) -> Never:
        """Until a ring closes; see `run_step`."""
        if self._compilation is not None:
            while self._compilation.remaining:
                self.step_or_compile(self._compilation)
            while self._compilation.left_out:
                self._note(self.run_step(), self._compilation)
        while True:
            self.run_step()

    def step_or_compile(self, compilation: Compilation) -> None:
        """A step; and a compilation, if none comes, or if one is due behind it."""
        idle, due = not self._has_step(IDLE_S), compilation.is_due
        if not idle:
            self._try_read_step = (lambda: None) if due else self._rings.steps.try_read  # that is begun no other
            self._note(self.run_step(), compilation)
        if idle or due:
            compilation.compile_next()
            self._open_buckets()
        self._try_read_step = self._rings.steps.try_read

    @staticmethod
    def _note(step: Step, compilation: Compilation) -> None:
        filled, head = step.filled, step.head
        if head[Head.FIXED]:  # it would have this shape all the same
            return
        compilation.note(filled.tokens, head[Head.ROWS], filled.samples, prompts=head[Head.CHUNK_TOKENS] > 0)

    def _has_step(self, patience_s: float) -> bool:
        if self._running is None and self._next is None:
            try:
                self._next = self._take(self._rings.steps.read(patience_s))
            except ipc.RingTimeout:
                return False
        return True

    def run_step(self) -> Step:
        """Bring the next step to its end, and begin the one after it, if that is there and its ids are known.

        Raises PeerDied, RingClosed, and what the runner raises.
        """
        step = self._running or self._begin(self._next or self._take(self._rings.steps.read()))
        slot = self._rings.logits.reserve()
        outcome, head, foresee = self._outcomes[slot.index], step.head, self._board.foresee
        samples, logit_rows = step.filled.samples, step.filled.describe(outcome.columns)
        columns, candidates, number = outcome.columns, head[Head.CANDIDATES], head[Head.STEP]
        self._chosen_by_sampling = chosen_by_sampling = head[Head.CHOSEN_BY_SAMPLING]
        draws, drafted, undrawn = head[Head.DRAWS], step.filled.drafts, 0
        _write_head(outcome.views, step, samples, logit_rows)
        if draws:
            best = outcome.best(samples, candidates, head[Head.SCORES])
            self._draws.prepare(step.views, step.sample_row[: samples - step.filled.scored], best, outcome.views)
        self._fetch(step, outcome, samples, logit_rows)
        computed_ns = time.clock_gettime_ns(_NS)  # until the next launch the device waits: no detour from here
        if draws:
            columns, candidates = outcome.drawn, 1
            if undrawn := self._draws.draw():
                self._fetch_undrawn(outcome, logit_rows)
                self._chosen_by_sampling = chosen_by_sampling = chosen_by_sampling | Choice.DRAWN
        if not (chosen_by_sampling or drafted):
            if self._board_step < number - 1:
                self._catch_up(number - 1)
            foresee(columns, samples, candidates or 1)
            self._board_step = number
        try:
            self._begin_early()
        finally:  # the next step may be what the device can't bear: this one's results are there all the same
            outcome.views.stamps[Stamp.TAKEN : Stamp.COMPUTED + 1] = step.taken_ns, step.launched_ns, computed_ns
            slot.publish()
        if draws:
            self._draws.count(undrawn)
        self._done(step, greedy=bool(candidates and samples) and not (chosen_by_sampling or logit_rows))
        return step

    # ---- the beginning of a step ----------------------------------------------------------------------------

    def _begin_early(self) -> None:
        """The next step, before this one's results are published."""
        self._running = None
        slot = self._try_read_step()
        self._next = step = None if slot is None else self._take(slot)
        if step is not None and not self._must_wait(step.words):
            self._next, self._running = None, self._launch(step)

    def _take(self, slot: ipc.ReadSlot) -> Step:
        step = self._steps[slot.index]
        step.taken_ns = time.clock_gettime_ns(_NS)
        step.slot = slot
        return step

    def _begin(self, step: Step) -> Step:
        self._next = None
        if self._must_wait(step.words):
            self._await_tokens(step.words)
        return self._launch(step)

    def _launch(self, step: Step) -> Step:
        """Fill in the inputs and start the device."""
        bucket = step.filled.fill()
        step.launched_ns = time.clock_gettime_ns(_NS)
        self.runner.launch(step.bindings[bucket])
        step.head = step.words.tolist()
        return step

    def _must_wait(self, words: memoryview) -> bool:
        """Decode rows bring the token that was sampled last, and the drafts behind it, if they may carry any."""
        return words[_DEPENDS_ON_STEP] > (self._record_step if words[_DRAFTS] else self._board_step)

    def _await_tokens(self, words: memoryview) -> None:
        self._drain_tokens()
        if self._must_wait(words):
            self._count_wait(words)
        while self._must_wait(words):
            self._read_board(self._rings.tokens.read())

    def _catch_up(self, step: int) -> None:
        """Read what sampling has chosen up to this step; the one behind it did not wait for it, since it has prompts
        alone. A row that sat out its last step comes back, and what it brings must be on the board by then."""
        while self._board_step < step:
            self._read_board(self._rings.tokens.read())

    def _drain_tokens(self) -> None:
        while (slot := self._rings.tokens.try_read()) is not None:
            self._read_board(slot)

    def _count_wait(self, words: memoryview) -> None:
        if self._counters is not None:
            for reason, counter in _WAITS:
                if self._chosen_by_sampling & reason:
                    self._counters.add(counter)
            if words[_DRAFTS] or not self._chosen_by_sampling:
                self._counters.add(InferenceCounter.WAITED_FOR_DRAFTS)

    def _read_board(self, slot: ipc.ReadSlot) -> None:
        views = self._token_views[slot.index]
        step = int(views.head[Head.STEP])
        if step >= self._board_step:  # else a step since has had the tokens behind those
            self._board.apply(self._records[slot.index], int(views.head[Head.ROWS]))
            self._board_step = step
        self._record_step = step
        slot.release()

    # ---- its end --------------------------------------------------------------------------------------------

    def _fetch(self, step: Step, outcome: Outcome, samples: int, logit_rows: int) -> None:
        """Only rows that need logits bring them to the host; of all others the device says what is best. Where
        nothing is sampled no row is fetched: that waits for the step all the same."""
        candidates, scores, views = step.head[Head.CANDIDATES], step.head[Head.SCORES], outcome.views
        if logit_rows or not candidates:
            self.runner.fetch(step.fetched[:logit_rows], views.logits[:logit_rows])
        if candidates and (samples > logit_rows or scores or not step.head[Head.CHOSEN_BY_SAMPLING]):
            self.runner.fetch_best(outcome.best(samples, candidates, scores), outcome.targets(samples, scores))
        elif samples and not step.head[Head.CHOSEN_BY_SAMPLING]:  # the host has all logits
            views.ids[:samples] = np.argmax(views.logits[:samples], axis=1, out=self._argmax[:samples])

    def _fetch_undrawn(self, outcome: Outcome, logit_rows: int) -> None:
        """Sampling draws these tokens, from all logits."""
        views, unknown = outcome.views, self._draws.unknown()
        end = logit_rows + len(unknown)
        views.logit_rows[unknown] = np.arange(logit_rows, end, dtype=np.int32)
        self.runner.fetch(unknown, views.logits[logit_rows:end])
        views.head[Head.LOGIT_ROWS] = end
        views.head[Head.CHOSEN_BY_SAMPLING] |= Choice.DRAWN

    def _done(self, step: Step, *, greedy: bool) -> None:
        assert step.slot is not None
        step.slot.release()
        step.slot = None
        self._drain_tokens()  # of steps that nothing depended on: sampling needs the room
        self.steps_done += 1
        if self._counters is not None:
            self._counters.add(InferenceCounter.STEPS)
            if greedy:
                self._counters.add(InferenceCounter.GREEDY_STEPS)
        if self._ends is not None:
            self._ends.copy()


_WAITS = (
    (Choice.DRAWN, InferenceCounter.WAITED_FOR_DRAW),
    (Choice.EDITED, InferenceCounter.WAITED_FOR_EDIT),
)


def _outcome_views(logits: ipc.SlotProducer | Unread, shapes: Shapes) -> list[LogitsColumns]:
    """By the index of a slot."""
    layout = logits_layout(shapes)
    if isinstance(logits, Unread):
        return [layout.views(own_memory(layout))]
    return layout.resident_views(logits)


def _write_head(out: LogitsColumns, step: Step, samples: int, logit_rows: int) -> None:
    """What sampling has to know of the step itself."""
    head = out.head
    head[:] = step.views.head
    head[Head.TOKENS] = step.filled.tokens
    head[Head.SAMPLES] = samples
    head[Head.LOGIT_ROWS] = logit_rows
    head[Head.SCORED] = step.filled.scored
    out.stamps[:] = step.views.stamps
