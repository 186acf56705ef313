"""Executes steps: takes a descriptor, runs the model on views of its slot, publishes what came out.

Everything is prepared before the first step: arrays over every slot of every ring, and the runner's inputs over each
step slot in each bucket. A step then creates no object per row, and copies nothing but the ids of its decode rows.

Where every row of a step takes the argmax, inference knows the tokens itself and does not wait for sampling before it
starts the next step. Sampling still decides what is said: a row that it ends, or that has no token, is at most
computed once more for nothing, as with any row that ends.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

import ipc
from model.runner import Bucket, Runner, StepInputs
from pipeline.descriptors import Head, Shapes, Stamp, logits_layout, step_layout, tokens_layout
from pipeline.stats import Counters, InferenceCounter, RingEnds

_NS = time.CLOCK_MONOTONIC


class StepExecutor:
    """`run_step` once per descriptor, in the order of the ring.

    The ends belong to the caller. `tokens` is the token board's ring: which token sampling chose for which row.
    """

    def __init__(
        self,
        runner: Runner,
        steps: ipc.SlotConsumer,
        tokens: ipc.SlotConsumer,
        logits: ipc.SlotProducer,
        shapes: Shapes,
        counters: Counters | None = None,
        ends: RingEnds | None = None,
    ) -> None:
        self.runner = runner
        self.steps_done = 0
        self._counters, self._ends = counters, ends
        self._steps, self._tokens, self._logits = steps, tokens, logits
        self._step_views = step_layout(shapes).resident_views(steps)
        self._token_views = tokens_layout(shapes).resident_views(tokens)
        self._logits_views = logits_layout(shapes).resident_views(logits)
        self._board: Any = np.zeros(shapes.max_rows, np.int32)
        self._board_step = 0  # every token up to this step's is on the board
        self._best: Any = np.zeros(shapes.max_rows, np.intp)
        self._bindings = {
            (slot, bucket.tokens, bucket.rows): runner.bind(_inputs(views, bucket))
            for slot, views in enumerate(self._step_views)
            for bucket in runner.facts.buckets
        }

    def run_step(self) -> None:
        """Wait for a descriptor and execute it. Raises PeerDied, RingClosed, and what the runner raises."""
        slot = self._steps.read()
        taken = time.clock_gettime_ns(_NS)
        views = self._step_views[slot.index]
        head: list[int] = views.head.tolist()
        rows = head[Head.LIVE_ROWS]
        out_slot = self._logits.reserve()
        out = self._logits_views[out_slot.index]
        _describe(views, out, rows)
        self._fill_ids(views, head[Head.DECODE_ROWS], head[Head.NEEDS])
        launched = time.clock_gettime_ns(_NS)
        self._execute(slot.index, head, out)
        out.stamps[Stamp.TAKEN : Stamp.COMPUTED + 1] = taken, launched, time.clock_gettime_ns(_NS)
        out_slot.publish()
        if head[Head.FORESEEN]:
            self._foresee(head, views.rows[:rows], out)
        slot.release()
        self.steps_done += 1
        if self._counters is not None:
            self._counters.add(InferenceCounter.STEPS)
        if self._ends is not None:
            self._ends.copy()

    def _fill_ids(self, views: Any, decode_rows: int, needs: int) -> None:
        """Decode rows bring the token that was sampled last: a gather from the board."""
        while (slot := self._tokens.try_read()) is not None:
            self._read_board(slot)
        while self._board_step < needs:
            self._read_board(self._tokens.read())
        if decode_rows:
            self._board.take(views.rows[:decode_rows], out=views.input_ids[:decode_rows], mode="clip")

    def _read_board(self, slot: ipc.ReadSlot) -> None:
        views = self._token_views[slot.index]
        step = int(views.head[Head.STEP])
        if step > self._board_step:  # else nobody in the steps since has had one of those tokens before
            rows = int(views.head[Head.LIVE_ROWS])
            self._board[views.rows[:rows]] = views.token_ids[:rows]
            self._board_step = step
        slot.release()

    def _foresee(self, head: list[int], rows: Any, out: Any) -> None:
        """Put this step's tokens on the board. The slot was published; but who reads it writes nothing there that is
        read here, and only this process will fill it again."""
        count = rows.size
        if head[Head.GREEDY]:
            self._board[rows] = np.maximum(out.token_ids[:count], 0)  # -1: no token, but an id it must be
        else:
            self._board[rows] = np.argmax(out.logits[:count], axis=1, out=self._best[:count])
        self._board_step = head[Head.STEP]

    def _execute(self, index: int, head: list[int], out: Any) -> None:
        rows = head[Head.ROWS]
        binding = self._bindings[index, head[Head.TOKENS], rows]
        if head[Head.GREEDY]:
            if self._counters is not None:
                self._counters.add(InferenceCounter.GREEDY_STEPS)
            self.runner.step_greedy(binding, out.token_ids[:rows])
        else:
            self.runner.step(binding, out.logits[:rows])


def _describe(views: Any, out: Any, rows: int) -> None:
    """What sampling has to know of the step: its rows, not its tokens. Written before the device starts: afterwards
    its code would have gone from the caches, and take ten times as long."""
    out.head[:] = views.head
    out.stamps[:] = views.stamps
    out.rows[:rows] = views.rows[:rows]
    out.epochs[:rows] = views.epochs[:rows]
    out.sampled[:rows] = views.sampled[:rows]
    out.lengths[:rows] = views.valid_length[:rows]


def _inputs(views: Any, bucket: Bucket) -> StepInputs:
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
