"""Logits in, tokens out, text after: the order in which a step leaves the critical path.

1. Choose the tokens, in one call over the views of the logits slot; those behind a draft that is wrong do not hold.
2. Publish them to inference, with drafts, which may be waiting for nothing else; not where it knows them itself.
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
from pipeline.sampling.verifier import Verifier
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

Exceptional = tuple[int, list[int], bool]
"""A row that has ended, or has not one token more: which one, its tokens, and whether it has ended."""


@dataclass(frozen=True, slots=True)
class SamplingRings:
    """The ends of the rings around sampling; they belong to the caller."""

    logits: ipc.SlotConsumer
    rows: ipc.ByteConsumer
    tokens: ipc.SlotProducer
    results: ipc.SlotProducer
    deltas: ipc.ByteProducer
    selector: ipc.RingSelector  # of logits, woken by preprocess, too


class Measurements:
    """What a step leaves on the statistics page."""

    def __init__(self, page: StatsPage, ends: RingEnds, replica: int = 0) -> None:
        self._counters = Counters(page, page.topology.find(SAMPLING, replica).key)
        self._log, self._ends = StepLog(page, replica), ends

    def record(self, head: list[int], stamps: Int64) -> None:
        self._log.record(head, stamps)

    def count(self, tokens: list[int], verified: Verifier, scored: int) -> None:
        failed = sum(token < 0 for token in tokens)
        self._counters.add(SamplingCounter.STEPS)
        self._counters.add(SamplingCounter.ROWS, verified.count)
        if verified.drafted:
            self._count_drafts(verified)
        self._counters.add(SamplingCounter.TOKENS, len(tokens) - failed)
        self._counters.add(SamplingCounter.FAILED_ROWS, failed)
        if scored:
            self._counters.add(SamplingCounter.SCORED_TOKENS, scored)
        self._ends.copy()

    def _count_drafts(self, verified: Verifier) -> None:
        self._counters.add(SamplingCounter.DRAFTED, verified.drafted)
        for _, taken in verified.spans():
            for right in range(taken - 1):
                self._counters.add(SamplingCounter.ACCEPTED_1 + right)


class SamplingStage:
    """`run_step` once per slot of the logits ring."""

    def __init__(
        self,
        rings: SamplingRings,
        shapes: Shapes,
        rows: Rows,
        chooser: Chooser,
        verifier: Verifier,
        measurements: Measurements | None = None,
    ) -> None:
        self._rings, self._rows, self._chooser, self._measurements = rings, rows, chooser, measurements
        self._verifier = verifier
        self._grammars = rows.grammars
        self._logits_views: list[LogitsColumns] = logits_layout(shapes).resident_views(rings.logits)
        self._token_views: list[TokensColumns] = tokens_layout(shapes).resident_views(rings.tokens)
        self._result_views: list[ResultsColumns] = results_layout(shapes).resident_views(rings.results)
        self._stamps: Int64 = np.zeros(STAMP_WORDS, np.int64)  # the slot is only read
        self.steps_done = 0

    def run(self) -> Never:
        """Until a ring closes. Raises PeerDied, RingClosed."""
        while True:
            if not self._rows:
                self.await_request()
            self.run_step()

    def await_request(self) -> None:
        """The state of one that finds nobody is made while the device computes its prompt."""
        while not (self._rows or self._rings.logits.occupancy):
            self._rings.selector.wait()
            self._read_changes()
        self._rows.begin_alone()

    def run_step(self) -> None:
        """Wait for logits and work them off. Raises PeerDied, RingClosed."""
        slot = self._rings.logits.read()
        received_ns = time.clock_gettime_ns(_NS)
        views, stamps = self._logits_views[slot.index], self._stamps
        head: list[int] = views.head.tolist()
        samples = head[Head.SAMPLES] - head[Head.SCORED]
        self._read_changes()
        self._rows.begin_step(head[Head.STEP])
        chosen = self._rows.select(views.rows[:samples].tolist(), views.epochs[:samples].tolist())
        held = self._grammars.hold_back(chosen) if self._grammars else _NOBODY
        self._chooser.choose(head, views, chosen)
        self._verifier.verify(chosen, self._chooser.token_ids, views)
        if self._grammars and self._verifier.drafter is not None:
            self._take_by_grammars(chosen)
        if self._verifier.is_awaited(head):
            self._publish_tokens(views, held)
        sampled_ns = time.clock_gettime_ns(_NS)
        self._chooser.finish(head, views)
        if head[Head.SCORED]:  # all that is said of a prompt comes before its first token
            self._rings.deltas.write_many(score_records(head, views, self._rows))
        if self._grammars and self._verifier.drafter is None:  # there are no drafts to be published with the tokens
            self._take_by_grammars(chosen)
        tokens, sent_ns = self._publish_results(views, chosen, held)
        stamps[:] = views.stamps
        stamps[Stamp.RECEIVED : Stamp.SENT + 1] = received_ns, sampled_ns, sent_ns
        self.steps_done += 1
        if self._measurements is not None:
            self._measurements.record(head, stamps)
        slot.release()
        self._chooser.pending.apply(chosen)
        self._chooser.pending.apply_others()
        if self._grammars:
            self._grammars.make_masks(lambda: self._rings.logits.occupancy > 0)
        if self._measurements is not None:
            self._measurements.count(tokens, self._verifier, head[Head.SCORED])

    def _read_changes(self) -> None:
        while (record := self._rings.rows.try_read()) is not None:
            with record:
                change = unpack_row(bytes(record))
            self._rows.change(change)

    def _take_by_grammars(self, chosen: list[int]) -> None:
        """Rows' tokens that hold; what must follow them are drafts."""
        ids = self._chooser.token_ids
        for row, (start, taken) in enumerate(self._verifier.spans()):
            if chosen[start] >= 0 and (grammar := self._grammars.of(chosen[start])) is not None:
                self._grammars.take(grammar, ids[start : start + taken].tolist())
                if grammar.most_drafts:
                    self._verifier.draft(row, grammar.drafts, grammar.most_drafts)

    def _publish_tokens(self, views: LogitsColumns, held: Held) -> None:
        """The newest of each row, and drafts. Of a row that failed it is -1; inference takes it for any token. A row
        that sits out has its last one once more, at the same position."""
        verified, slot = self._verifier, self._rings.tokens.reserve()
        rows, at = verified.count, verified.at
        board = self._token_views[slot.index]
        board.head[:] = views.head
        board.head[Head.ROWS] = rows
        board.rows[:rows] = views.rows[at]
        np.add(views.lengths[at], verified.taken[:rows], out=board.lengths[:rows])
        board.counts[:rows] = verified.counts[:rows]
        board.ids[:rows] = verified.ids[:rows]
        for b, grammar in held.items():
            row = verified.row_at(b)
            board.lengths[row], board.ids[row, 0] = views.lengths[b], grammar.last
        slot.publish()

    # ---- off the critical path ------------------------------------------------------------------------------

    def _publish_results(self, views: LogitsColumns, chosen: list[int], held: Held) -> tuple[list[int], int]:
        """What became of the rows, to preprocess and to the front; their tokens, and when the front had them. Of a
        lone row nothing is waited for but its text; of several the next step is what all wait for."""
        tokens, records, exceptions = self._take_rows(views, chosen, held)
        sent_ns = self._send(records) if self._verifier.count == 1 else 0
        slot = self._rings.results.reserve()
        self._fill_results(self._result_views[slot.index], views, exceptions)
        slot.publish()
        return tokens, sent_ns or self._send(records)

    def _send(self, records: list[bytes]) -> int:
        self._rings.deltas.write_many(records)
        return time.clock_gettime_ns(_NS)

    def _fill_results(self, results: ResultsColumns, views: LogitsColumns, exceptions: list[Exceptional]) -> None:
        verified = self._verifier
        rows, at = verified.count, verified.at
        results.head[:] = views.head
        results.head[Head.ROWS] = rows
        results.rows[:rows] = views.rows[at]
        results.epochs[:rows] = views.epochs[at]
        results.counts[:rows] = 1
        results.ids[:rows, 0] = self._chooser.token_ids[at]
        results.finished[:rows] = 0
        results.wishes[:rows] = verified.wishes[:rows]
        for row, given, finished in exceptions:
            results.counts[row], results.ids[row, : len(given)], results.finished[row] = len(given), given, finished

    def _take_rows(
        self, views: LogitsColumns, chosen: list[int], held: Held
    ) -> tuple[list[int], list[bytes], list[Exceptional]]:
        """Tokens, the front's records, and rows of which there is more to say than their token."""
        verified, every = self._verifier, self._chooser.token_ids[: len(chosen)].tolist()
        tokens: list[int] = []
        records: list[bytes] = []
        exceptions: list[Exceptional] = []
        for b, (start, taken) in enumerate(verified.spans()):
            if chosen[start] >= 0:
                given, finished = self._take_all(start, chosen[start], every[start : start + taken], views, records)
                tokens += given
                if finished or len(given) > 1:
                    exceptions.append((b, given, finished))
        for at, grammar in held.items():
            b = verified.row_at(at)
            if grammar.error:
                records.append(self._fail(grammar.row, f"the grammar failed: {grammar.error}").pack())
                tokens.append(-1)
            exceptions.append((b, [-1], True) if grammar.error else (b, [], False))
        return tokens, records, exceptions

    def _take_all(
        self, b: int, row: int, tokens: list[int], views: LogitsColumns, records: list[bytes]
    ) -> tuple[list[int], bool]:
        """A row's tokens, from position `b` on; those that it got before it ended, and whether it did."""
        for number, token in enumerate(tokens):
            delta = self._take(b + number, row, token, views, number=number + 1)
            records.append(delta.pack())
            if delta.reason is not FinishReason.NONE:
                return tokens[: number + 1], True
        return tokens, False

    def _take(self, b: int, row: int, token: int, views: LogitsColumns, *, number: int) -> Delta:
        """`number`: of the row's tokens in this step."""
        state, grammar = self._rows.state(row), self._grammars.of(row)
        if token < 0:
            why = self._chooser.explain(b, views, masked=grammar is not None)
            return self._fail(row, f"no token could be chosen: {why}")
        if grammar is not None and grammar.error:
            return self._fail(row, f"the grammar failed: {grammar.error}")
        delta = state.take(token, complete=grammar is not None and number == grammar.taken and grammar.complete)
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
