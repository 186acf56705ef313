"""Logits in, tokens out, text after: the order in which a step leaves the critical path.

1. Choose the tokens, in one call over the views of the logits slot.
2. Publish them to inference, which may be waiting for nothing else; not where it knows them itself.
3. Then detokenize, look for ends, and tell the front and preprocess.
"""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from typing import Any

import numpy as np

import ipc
from model.sampling import SampleOutputs, Sampler, SamplingLimits, explain
from model.tokenizer import Tokenizer
from pipeline.sampling.logits_files import LogitsFiles
from pipeline.sampling.pending_admits import PendingAdmits
from pipeline.sampling.text_state import TextState
from pipeline.stats import Counters, RingEnds, SamplingCounter, StatsPage, StepLog
from pipeline.wire.request import Admit, Delta, Drop, FinishReason, unpack_row
from pipeline.wire.step import Head, Shapes, Stamp, logits_layout, results_layout, tokens_layout

_NS = time.CLOCK_MONOTONIC
MAX_TOP_LOGPROBS = 20  # OpenAI's limit
NO_EPOCH = -1


class SamplingStage:
    """`run_step` once per slot of the logits ring."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        end_ids: frozenset[int],
        max_length: int,
        shapes: Shapes,
        *,
        logits: ipc.SlotConsumer,
        rows: ipc.ByteConsumer,
        tokens: ipc.SlotProducer,
        results: ipc.SlotProducer,
        deltas: ipc.ByteProducer,
        stats: StatsPage | None = None,
        ends: RingEnds | None = None,
        logits_files: LogitsFiles | None = None,
    ) -> None:
        self._tokenizer, self._end_ids = tokenizer, end_ids
        limits = SamplingLimits(shapes.vocab_size, max_length, MAX_TOP_LOGPROBS)
        biased = limits.max_biased_tokens + len(end_ids)  # a client's, and the model's end tokens
        limits = dataclasses.replace(limits, max_biased_tokens=biased)
        self._sampler = Sampler(limits, shapes.max_rows)
        self._out = SampleOutputs.allocate(shapes.max_rows, MAX_TOP_LOGPROBS)
        self._outs = [_leading(self._out, rows) for rows in range(shapes.max_rows + 1)]
        self._logits, self._rows = logits, rows
        self._tokens, self._results, self._deltas = tokens, results, deltas
        self._logits_views = logits_layout(shapes).resident_views(logits)
        self._token_views = tokens_layout(shapes).resident_views(tokens)
        self._result_views = results_layout(shapes).resident_views(results)
        self._row_ids: Any = np.full(shapes.max_rows, -1, np.int32)  # rows to sample from, -1: skip
        self._epochs = [NO_EPOCH] * shapes.max_rows  # the tenancy of each row
        self._states: list[TextState | None] = [None] * shapes.max_rows
        self._by_request: dict[int, TextState] = {}
        self._coming: deque[Admit] = deque()
        self.steps_done = 0
        self._counters = Counters(stats, "sampling") if stats else None
        self._log = StepLog(stats) if stats else None
        self._ends = ends
        self._files = logits_files
        self._pending = PendingAdmits(self._sampler, logits_files)

    def run_step(self) -> None:
        """Wait for logits and work them off. Raises PeerDied, RingClosed."""
        slot = self._logits.read()
        views = self._logits_views[slot.index]
        views.stamps[Stamp.RECEIVED] = time.clock_gettime_ns(_NS)
        head: list[int] = views.head.tolist()
        rows = head[Head.LIVE_ROWS]
        self._change_rows(head[Head.STEP])
        chosen = self._select(views, rows)
        if head[Head.ARGMAX_ON_DEVICE]:
            self._out.token_ids[:rows] = views.token_ids[:rows]  # -1: the row's logits were not finite
        else:
            self._sample(views, chosen)
        if not head[Head.ALL_ARGMAX]:
            self._publish_tokens(views, rows)
        views.stamps[Stamp.SAMPLED] = time.clock_gettime_ns(_NS)
        self._copy_logprobs(head, views, rows)
        tokens = self._publish_results(views, chosen)
        views.stamps[Stamp.SENT] = time.clock_gettime_ns(_NS)
        self.steps_done += 1
        if self._log is not None:
            self._log.record(views.head, views.stamps)
        slot.release()
        self._pending.apply(chosen)
        self._pending.apply_others()
        self._count(tokens)

    def _count(self, tokens: list[int]) -> None:
        if self._counters is not None:
            failed = sum(token < 0 for token in tokens)
            self._counters.add(SamplingCounter.STEPS)
            self._counters.add(SamplingCounter.TOKENS, len(tokens) - failed)
            self._counters.add(SamplingCounter.FAILED_ROWS, failed)
        if self._ends is not None:
            self._ends.copy()

    # ---- rows and their sequences ----------------------------------------------------------------------------------

    def _change_rows(self, step: int) -> None:
        """A row's sequence changes with the step that first serves the new one."""
        while (record := self._rows.try_read()) is not None:
            with record:
                change = unpack_row(bytes(record))
            if isinstance(change, Drop):
                self._drop(change.request)
            else:
                self._coming.append(change)
        while self._coming and self._coming[0].from_step <= step:
            self._install(self._coming.popleft())

    def _install(self, admit: Admit) -> None:
        state = self._by_request.get(admit.request)
        if state is None:
            state = TextState.of(admit, self._tokenizer, self._end_ids)
            self._by_request[admit.request] = state
        self._pending.add(admit)
        self._states[admit.row] = state
        self._epochs[admit.row] = admit.epoch

    def _drop(self, request: int) -> None:
        """A cancelled request, wherever it is: waiting for its row, in it, or preempted."""
        self._coming = deque(admit for admit in self._coming if admit.request != request)
        state = self._by_request.pop(request, None)
        for row, there in enumerate(self._states):
            if there is state:
                self._vacate(row)

    def _vacate(self, row: int) -> None:
        self._states[row] = None
        self._epochs[row] = NO_EPOCH
        self._pending.discard(row)

    # ---- tokens ---------------------------------------------------------------------------------------------

    def _select(self, views: Any, rows: int) -> list[int]:
        """Rows whose prompt is complete and whose sequence is still there; -1 in place of others. Few as they are,
        they are looked at one by one: numpy's code would have to be fetched from memory first."""
        columns = (views.rows[:rows].tolist(), views.epochs[:rows].tolist(), views.sampled[:rows].tolist())
        epochs = self._epochs
        return [row if wanted and epochs[row] == epoch else -1 for row, epoch, wanted in zip(*columns, strict=True)]

    def _sample(self, views: Any, chosen: list[int]) -> None:
        self._pending.apply(chosen)
        rows = len(chosen)
        self._row_ids[:rows] = chosen
        which, lengths, logits = self._row_ids[:rows], views.lengths[:rows], views.logits[:rows]
        if self._files is not None:
            self._files.keep(which, lengths, logits)
        self._sampler.choose(logits, which, lengths, self._outs[rows])

    def _publish_tokens(self, views: Any, rows: int) -> None:
        slot = self._tokens.reserve()
        board = self._token_views[slot.index]
        board.head[:] = views.head
        board.rows[:rows] = views.rows[:rows]
        np.maximum(self._out.token_ids[:rows], 0, out=board.token_ids[:rows])  # inference must not see a -1
        slot.publish()

    # ---- off the critical path ------------------------------------------------------------------------------

    def _copy_logprobs(self, head: list[int], views: Any, rows: int) -> None:
        """Log-probabilities of the tokens that are out."""
        if head[Head.ARGMAX_ON_DEVICE]:
            if head[Head.LOGPROBS]:
                self._out.logprobs[:rows] = views.logprobs[:rows]
            return
        if head[Head.LOGPROBS]:
            logits, lengths = views.logits[:rows], views.lengths[:rows]
            self._sampler.compute_logprobs(logits, self._row_ids[:rows], lengths, self._outs[rows])
        if self._files is not None:  # before its client has the answer
            self._files.write(self._row_ids[:rows], self._out.token_ids[:rows])

    def _publish_results(self, views: Any, chosen: list[int]) -> list[int]:
        """What became of the rows, to preprocess and to the front; their tokens."""
        rows = len(chosen)
        slot = self._results.reserve()
        results = self._result_views[slot.index]
        results.head[:] = views.head
        for name in ("rows", "epochs", "sampled"):
            getattr(results, name)[:rows] = getattr(views, name)[:rows]
        results.token_ids[:rows] = self._out.token_ids[:rows]
        results.finished[:rows] = 0
        records, tokens = [], []
        for b, (row, token) in enumerate(zip(chosen, self._out.token_ids[:rows].tolist(), strict=True)):
            if row >= 0:
                delta = self._take(b, row, token, views)
                if delta.reason is not FinishReason.NONE:
                    results.finished[b] = 1
                records.append(delta.pack())
                tokens.append(token)
        slot.publish()
        self._deltas.write_many(records)
        return tokens

    def _take(self, b: int, row: int, token: int, views: Any) -> Delta:
        state = self._states[row]
        assert state is not None  # `_select` looked
        if token < 0:
            delta = state.fail(f"no token could be chosen: {self._explain(b, views)}")
        else:
            delta = state.take(token)
            if state.top_logprobs >= 0:
                delta.logprob, delta.top = self._logprobs(b, state.top_logprobs)
            if state.raw_logit and not views.head[Head.ARGMAX_ON_DEVICE]:
                delta.logprob = float(views.logits[b, token])
        if state.finished:
            del self._by_request[state.request]
            self._vacate(row)
        return delta

    def _explain(self, b: int, views: Any) -> str:
        if views.head[Head.ARGMAX_ON_DEVICE]:
            return "the model's logits are not finite"
        return explain(int(self._out.status[b]), views.logits[b])

    def _logprobs(self, b: int, count: int) -> tuple[float, tuple[tuple[int, float], ...]]:
        ids, values = self._out.top_ids[b, :count].tolist(), self._out.top_logprobs[b, :count].tolist()
        return float(self._out.logprobs[b]), tuple(zip(ids, values, strict=True))


def _leading(out: SampleOutputs, rows: int) -> SampleOutputs:
    """The first rows of the same arrays."""
    return SampleOutputs(
        out.token_ids[:rows], out.status[:rows], out.logprobs[:rows], out.top_ids[:rows], out.top_logprobs[:rows]
    )
