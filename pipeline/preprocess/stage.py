"""The preprocess stage: requests in, step descriptors out, one step ahead of the device.

Admission and scheduling happen while the device computes. Two loops drive it: `run_overlapped` plans step
*k + 1* while step *k* runs, `run_plain` waits for the results of each step before it plans the next. Both give the
same text.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import ipc
from pipeline.preprocess.intake import Intake
from pipeline.preprocess.scheduler import Scheduler
from pipeline.preprocess.sequence import Sequence
from pipeline.stats import Counters, PreprocessCounter, RingEnds
from pipeline.wire.request import Admit, Started
from pipeline.wire.step import Head, Shapes, Stamp, results_layout, step_layout

_NS = time.CLOCK_MONOTONIC
OVERLAPPED = 2  # steps under way: one computes, one waits with all but its token ids
PLAIN = 1


class PreprocessStage:
    """Owns the scheduler and the ends of the rings around it."""

    def __init__(
        self,
        scheduler: Scheduler,
        intake: Intake,
        shapes: Shapes,
        *,
        requests: ipc.ByteConsumer,
        results: ipc.SlotConsumer,
        replies: ipc.ByteProducer,
        rows: ipc.ByteProducer,
        steps: ipc.SlotProducer,
        selector: ipc.RingSelector,
        greedy_on_device: bool,
        counters: Counters | None = None,
        ends: RingEnds | None = None,
    ) -> None:
        self.scheduler = scheduler
        self.steps_planned = 0
        self.steps_done = 0
        self._intake = intake
        self._requests, self._results = requests, results
        self._replies, self._rows, self._steps = replies, rows, steps
        self._unsent: list[bytes] = intake.replies  # a step is not to wait for them
        self._selector, self._greedy_on_device = selector, greedy_on_device
        self._counters, self._ends = counters, ends
        self._counted = {counter: counters.get(counter) for counter in _COUNTED} if counters else {}
        self._step_views = step_layout(shapes).resident_views(steps)
        self._result_views = results_layout(shapes).resident_views(results)

    # ---- the two loops --------------------------------------------------------------------------------------

    def run_overlapped(self, running: Callable[[], bool]) -> None:
        """Plan the next step while the device computes this one."""
        while running():
            moved = self.take_results() | self.take_request()
            if self.may_plan(OVERLAPPED):
                moved |= self.plan_step()
            self._rest(moved)

    def run_plain(self, running: Callable[[], bool]) -> None:
        """Plan a step when the one before is known in full."""
        while running():
            moved = self.take_results() | self.take_request()
            if self.may_plan(PLAIN):
                moved |= self.plan_step()
            self._rest(moved)

    def _rest(self, moved: bool) -> None:
        """Publish the gauges; sleep if there was nothing to do."""
        if self._counters is not None:
            publish_gauges(self._counters, self.scheduler, self.steps_planned, self._counted)
            self._intake.publish_gauges(len(self.scheduler.waiting))
        if self._ends is not None:
            self._ends.copy()
        self.send_replies()
        if not moved:
            self._selector.wait(timeout=1.0)

    @property
    def under_way(self) -> int:
        return self.steps_planned - self.steps_done

    def may_plan(self, ahead: int) -> bool:
        """Whether another step may be under way; in a quarantine it must be the only one."""
        return self.under_way < (PLAIN if self.scheduler.quarantined else ahead)

    # ---- what a loop does -----------------------------------------------------------------------------------

    def take_results(self) -> bool:
        """Apply the results of steps that are done; False if there are none."""
        moved = False
        while (slot := self._results.try_read()) is not None:
            views = self._result_views[slot.index]
            self._apply(views, int(views.head[Head.LIVE_ROWS]))
            slot.release()
            self.steps_done += 1
            moved = True
        return moved

    def _apply(self, views: Any, rows: int) -> None:
        columns = (views.rows, views.epochs, views.sampled, views.token_ids, views.finished)
        for row, epoch, sampled, token, finished in zip(*(column[:rows].tolist() for column in columns), strict=True):
            if sampled:
                self.scheduler.on_token(row, epoch, token, finished=bool(finished))

    def take_request(self) -> bool:
        """Queue one prompt that was tokenized, and handle one message of the front; False if there is neither. One at
        a time: steps are not to wait for them."""
        finished = self._intake.finish()
        record = self._requests.try_read()
        if record is None:
            return finished
        with record:
            message = bytes(record)
        self._intake.take(message)
        return True

    def send_replies(self) -> None:
        """Tell the front what became of requests since the last time."""
        if self._unsent:
            self._replies.write_many(self._unsent)
            self._unsent.clear()

    def plan_step(self) -> bool:
        """Write and publish the next descriptor, then what is to be told of requests; False if there is nothing to
        compute."""
        planned = self._plan_step()
        self.send_replies()
        return planned

    def _plan_step(self) -> bool:
        if not self.scheduler.has_work:
            return False
        slot = self._steps.reserve()
        views = self._step_views[slot.index]
        views.stamps[:] = 0
        views.stamps[Stamp.BEGUN] = time.clock_gettime_ns(_NS)
        plan = self.scheduler.schedule(views, slot.index)
        if plan is None:
            slot.abandon()
            return False
        number = self.steps_planned + 1
        views.head[Head.STEP] = number
        views.head[Head.DEPENDS_ON_STEP : Head.LOGPROBS + 1] = (
            number - 1 if plan.decode_rows else 0,
            self._greedy_on_device and self.scheduler.greedy,
            self.scheduler.argmax,
            self.scheduler.logprobs,
        )
        self._announce(number)
        views.stamps[Stamp.SCHEDULED] = time.clock_gettime_ns(_NS)
        slot.publish()
        self.steps_planned = number
        return True

    def _announce(self, step: int) -> None:
        """Tell sampling who sits where from this step on, before it can see the step."""
        for sequence in self.scheduler.admissions:
            if sequence.row >= 0:
                self._rows.write(self._admit(sequence, step).pack())
                if sequence.fresh:
                    waited = time.clock_gettime_ns(_NS) - sequence.arrival_ns
                    self._unsent.append(Started(sequence.request, waited, sequence.cached).pack())
        self.scheduler.admissions.clear()

    @staticmethod
    def _admit(sequence: Sequence, step: int) -> Admit:
        assert sequence.params is not None
        return Admit(
            request=sequence.request,
            from_step=step,
            row=sequence.row,
            epoch=sequence.epoch,
            limit=sequence.limit,
            cached_tokens=sequence.cached,
            params=sequence.params,
            prompt_ids=sequence.tokens[: sequence.prompt],
            output_ids=sequence.tokens[sequence.prompt : sequence.known],
            arrival_ns=sequence.arrival_ns,
        )


_COUNTED = (
    PreprocessCounter.STEPS,
    PreprocessCounter.PREFIX_QUERIES,
    PreprocessCounter.PREFIX_HITS,
    PreprocessCounter.PREEMPTIONS,
    PreprocessCounter.ADMITTED,
    PreprocessCounter.CANCELLED,
)


def publish_gauges(
    counters: Counters, scheduler: Scheduler, steps: int, before: Mapping[PreprocessCounter, int]
) -> None:
    """What `/metrics` shows of the scheduler: plain stores into the statistics page. `before` is what the schedulers
    of earlier generations have counted."""
    blocks, stats = scheduler.blocks, scheduler.stats
    counted = (steps, blocks.stats.queries, blocks.stats.hits, stats.preemptions, stats.admitted, stats.cancelled)
    for counter, count in zip(_COUNTED, counted, strict=True):
        counters.set(counter, before[counter] + count)
    counters.set(PreprocessCounter.RUNNING, scheduler.running)
    counters.set(PreprocessCounter.KV_BLOCKS_USED, blocks.used)
    counters.set(PreprocessCounter.KV_BLOCKS_TOTAL, blocks.num_blocks - 1)
    counters.set(PreprocessCounter.CACHED_BLOCKS, blocks.cached)
