"""Logits in, tokens out, text after: the order in which a step leaves the critical path.

1. Choose the tokens, in one call over the views of the logits slot.
2. Publish them to inference, which may be waiting for nothing else; not where it knows them itself.
3. Then detokenize, look for ends, and publish the results to the front and to preprocess.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Never

import numpy as np

import ipc
from pipeline.sampling.chooser import Chooser
from pipeline.sampling.grammars import RowGrammar
from pipeline.sampling.rows import Rows
from pipeline.sampling.scores import score_records
from pipeline.stats import Counters, RingEnds, SamplingCounter, StatsPage, StepLog
from pipeline.wire.delta import Delta, FinishReason
from pipeline.wire.request import unpack_row
from pipeline.wire.step import (
    STAMP_WORDS,
    Head,
    Int64,
    LogitsColumns,
    ResultsColumns,
    Shapes,
    Stamp,
    TokensColumns,
    logits_layout,
    results_layout,
    tokens_layout,
)
from pipeline.wire.topology import SAMPLING

_NS = time.CLOCK_MONOTONIC

Held = Mapping[int, RowGrammar]
"""Rows that sit out a step, by their position in it."""

_NOBODY: Held = {}


@dataclass(frozen=True, slots=True)
class SamplingRings:
    """The ends of the rings around sampling; they belong to the caller."""

    logits: ipc.SlotConsumer
    rows: ipc.ByteConsumer
    tokens: ipc.SlotProducer
    results: ipc.SlotProducer
    deltas: ipc.ByteProducer


class Measurements:
    """What a step leaves on the statistics page."""

    def __init__(self, page: StatsPage, ends: RingEnds, replica: int = 0) -> None:
        self._counters = Counters(page, page.topology.find(SAMPLING, replica).key)
        self._log, self._ends = StepLog(page, replica), ends

    def record(self, head: list[int], stamps: Int64) -> None:
        self._log.record(head, stamps)

    def count(self, tokens: list[int], scored: int) -> None:
        failed = sum(token < 0 for token in tokens)
        self._counters.add(SamplingCounter.STEPS)
        self._counters.add(SamplingCounter.TOKENS, len(tokens) - failed)
        self._counters.add(SamplingCounter.FAILED_ROWS, failed)
        self._counters.add(SamplingCounter.SCORED_TOKENS, scored)
        self._ends.copy()


class SamplingStage:
    """`run_step` once per slot of the logits ring."""

    def __init__(
        self,
        rings: SamplingRings,
        shapes: Shapes,
        rows: Rows,
        chooser: Chooser,
        measurements: Measurements | None = None,
    ) -> None:
        self._rings, self._rows, self._chooser, self._measurements = rings, rows, chooser, measurements
        self._grammars = rows.grammars
        self._logits_views: list[LogitsColumns] = logits_layout(shapes).resident_views(rings.logits)
        self._token_views: list[TokensColumns] = tokens_layout(shapes).resident_views(rings.tokens)
        self._result_views: list[ResultsColumns] = results_layout(shapes).resident_views(rings.results)
        self._stamps: Int64 = np.zeros(STAMP_WORDS, np.int64)  # the slot is only read
        self.steps_done = 0

    def run(self) -> Never:
        """Until a ring closes. Raises PeerDied, RingClosed."""
        while True:
            self.run_step()

    def run_step(self) -> None:
        """Wait for logits and work them off. Raises PeerDied, RingClosed."""
        slot = self._rings.logits.read()
        received_ns = time.clock_gettime_ns(_NS)
        views, stamps = self._logits_views[slot.index], self._stamps
        head: list[int] = views.head.tolist()
        samples = head[Head.SAMPLES] - head[Head.SCORED]
        self._change_rows(head[Head.STEP])
        chosen = self._rows.select(views.rows[:samples].tolist(), views.epochs[:samples].tolist())
        held = self._grammars.hold_back(chosen) if self._grammars else _NOBODY
        self._chooser.choose(head, views, chosen)
        if head[Head.CHOSEN_BY_SAMPLING]:
            self._publish_tokens(views, samples, held)
        sampled_ns = time.clock_gettime_ns(_NS)
        self._chooser.finish(head, views)
        if head[Head.SCORED]:  # all that is said of a prompt comes before its first token
            self._rings.deltas.write_many(score_records(head, views, self._rows))
        tokens = self._publish_results(views, chosen, held)
        stamps[:] = views.stamps
        stamps[Stamp.RECEIVED : Stamp.SENT + 1] = received_ns, sampled_ns, time.clock_gettime_ns(_NS)
        self.steps_done += 1
        if self._measurements is not None:
            self._measurements.record(head, stamps)
        slot.release()
        self._chooser.pending.apply(chosen)
        self._chooser.pending.apply_others()
        if self._grammars:
            self._grammars.make_masks(lambda: self._rings.logits.occupancy > 0)
        if self._measurements is not None:
            self._measurements.count(tokens, head[Head.SCORED])

    def _change_rows(self, step: int) -> None:
        while (record := self._rings.rows.try_read()) is not None:
            with record:
                change = unpack_row(bytes(record))
            self._rows.change(change)
        self._rows.begin_step(step)

    def _publish_tokens(self, views: LogitsColumns, rows: int, held: Held) -> None:
        """One of each row. Of a row that failed it is -1; inference takes it for any token. A row that sits out has
        its last one once more, at the same position."""
        slot = self._rings.tokens.reserve()
        board = self._token_views[slot.index]
        board.head[:] = views.head
        board.head[Head.ROWS] = rows
        board.rows[:rows] = views.rows[:rows]
        np.add(views.lengths[:rows], 1, out=board.lengths[:rows])
        board.counts[:rows] = 1
        board.ids[:rows, 0] = self._chooser.token_ids[:rows]
        for b, grammar in held.items():
            board.lengths[b], board.ids[b, 0] = views.lengths[b], grammar.last
        slot.publish()

    # ---- off the critical path ------------------------------------------------------------------------------

    def _publish_results(self, views: LogitsColumns, chosen: list[int], held: Held) -> list[int]:
        """What became of the rows, to preprocess and to the front; their tokens."""
        rows = len(chosen)
        slot = self._rings.results.reserve()
        results = self._result_views[slot.index]
        results.head[:] = views.head
        results.head[Head.ROWS] = rows
        results.rows[:rows] = views.rows[:rows]
        results.epochs[:rows] = views.epochs[:rows]
        results.counts[:rows] = 1
        token_ids = self._chooser.token_ids[:rows]
        results.ids[:rows, 0] = token_ids
        results.finished[:rows] = 0
        records, tokens = [], []
        for b, (row, token) in enumerate(zip(chosen, token_ids.tolist(), strict=True)):
            if row >= 0:
                delta = self._take(b, row, token, views)
                if delta.reason is not FinishReason.NONE:
                    results.finished[b] = 1
                records.append(delta.pack())
                tokens.append(token)
        for b, grammar in held.items():
            results.counts[b] = 0
            if grammar.error:
                results.counts[b], results.ids[b, 0], results.finished[b] = 1, -1, 1
                records.append(self._fail(grammar.row, f"the grammar failed: {grammar.error}").pack())
                tokens.append(-1)
        slot.publish()
        self._rings.deltas.write_many(records)
        return tokens

    def _take(self, b: int, row: int, token: int, views: LogitsColumns) -> Delta:
        state, grammar = self._rows.state(row), self._grammars.of(row) if self._grammars else None
        if token < 0:
            why = self._chooser.explain(b, views, masked=grammar is not None)
            return self._fail(row, f"no token could be chosen: {why}")
        if grammar is not None and not self._grammars.take(grammar, token):
            return self._fail(row, f"the grammar failed: {grammar.error}")
        delta = state.take(token, complete=grammar is not None and grammar.complete)
        if state.top_logprobs >= 0:
            delta.logprob, delta.top = self._chooser.logprobs(b, state.top_logprobs)
        if state.raw_logit:
            delta.logprob = self._chooser.raw_logit(b, views)
        if state.finished:
            self._rows.release(row)
        return delta

    def _fail(self, row: int, why: str) -> Delta:
        delta = self._rows.state(row).fail(why)
        self._rows.release(row)
        return delta
