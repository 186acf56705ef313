"""The preprocess stage: requests in, step descriptors out, ahead of the device.

Admission and scheduling happen while the device computes. How many steps may be under way is one number: with two,
step *k + 1* is planned while step *k* runs; with one, when the results of step *k* are known. Both give one text.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Never

import ipc
from pipeline.preprocess.intake import Intake
from pipeline.preprocess.rehearsal import Rehearsal
from pipeline.preprocess.scheduler import Scheduler
from pipeline.stats import Counters, PreprocessCounter, RingEnds, StepLimits
from pipeline.wire.request import Started
from pipeline.wire.step import Head, ResultsColumns, Shapes, Stamp, StepColumns, results_layout, step_layout

_NS = time.CLOCK_MONOTONIC
OVERLAPPED = 2  # steps under way: one computes, one waits with all but its token ids
PLAIN = 1
_PATIENCE_NS = 300_000  # for a request that is announced

_COUNTED = (
    PreprocessCounter.STEPS,
    PreprocessCounter.PREFIX_QUERIES,
    PreprocessCounter.PREFIX_HITS,
    PreprocessCounter.PREEMPTIONS,
    PreprocessCounter.ADMITTED,
    PreprocessCounter.CANCELLED,
)


@dataclass(frozen=True, slots=True)
class PreprocessRings:
    """The ends of the rings around preprocess, and what waits for them; they belong to the caller."""

    requests: ipc.ByteConsumer
    results: ipc.SlotConsumer
    replies: ipc.ByteProducer
    rows: ipc.ByteProducer
    steps: ipc.SlotProducer
    selector: ipc.RingSelector
    rows_fd: int  # the eventfd of the ring of rows: wakes sampling where it has none


class Gauges:
    """What `/metrics` shows of preprocess. Made for a generation; counters go on where those of earlier generations
    have ended."""

    def __init__(self, counters: Counters, ends: RingEnds) -> None:
        self._counters, self._ends = counters, ends
        self._before = [counters.get(counter) for counter in _COUNTED]

    def publish(self, scheduler: Scheduler, steps: int) -> None:
        blocks, stats, counters = scheduler.blocks, scheduler.stats, self._counters
        counted = (steps, blocks.stats.queries, blocks.stats.hits, stats.preemptions, stats.admitted, stats.cancelled)
        for counter, before, count in zip(_COUNTED, self._before, counted, strict=True):
            counters.set(counter, before + count)
        counters.set(PreprocessCounter.RUNNING, scheduler.running)
        counters.set(PreprocessCounter.KV_BLOCKS_USED, blocks.used)
        counters.set(PreprocessCounter.KV_BLOCKS_TOTAL, blocks.num_blocks - 1)
        counters.set(PreprocessCounter.CACHED_BLOCKS, blocks.cached)
        self._ends.copy()


class PreprocessStage:
    """`depth` steps may be under way."""

    def __init__(
        self,
        rings: PreprocessRings,
        shapes: Shapes,
        scheduler: Scheduler,
        intake: Intake,
        *,
        depth: int,
        gauges: Gauges | None = None,
        step_limits: Callable[[], StepLimits] | None = None,
    ) -> None:
        """``step_limits``: what inference has compiled buckets for: see `StatsReader.step_limits`; None: for any
        step."""
        self._rings, self.scheduler, self._intake, self._gauges = rings, scheduler, intake, gauges
        self._depth, self._step_limits, self._shapes = depth, step_limits, shapes
        self._step_views: list[StepColumns] = step_layout(shapes).resident_views(rings.steps)
        self._result_views: list[ResultsColumns] = results_layout(shapes).resident_views(rings.results)
        self._unsent: list[bytes] = intake.replies  # a step waits for those of the requests that it begins only
        self._unannounced = False
        self._rehearsal = Rehearsal(scheduler.blocks, shapes)
        self.steps_planned = 0
        self.steps_done = 0

    def run(self) -> Never:
        """Until a ring closes. Raises PeerDied, RingClosed."""
        while True:
            moved = self.take_results() | self.take_request()
            if self.may_plan:
                moved |= self.plan_step()
            self._publish_gauges()
            self.send_replies()
            if not moved:
                self.wake_sampling()
                if self._rings.selector.wait(timeout=1.0) and self.idle:
                    self.expect_request()

    def expect_request(self) -> None:
        """The front reads one: be warm by then, and awake for a moment more."""
        self._rehearsal.run(self._intake.reader, lambda: self._rings.requests.occupancy > 0)
        patience_ns = time.clock_gettime_ns(_NS) + _PATIENCE_NS
        while not self._rings.requests.occupancy and time.clock_gettime_ns(_NS) < patience_ns:
            os.sched_yield()

    @property
    def idle(self) -> bool:
        """There is nothing to do, and nothing is under way."""
        busy = self.under_way or self.scheduler.has_work or self._rings.requests.occupancy
        return not busy and self._intake.idle

    def wake_sampling(self) -> None:
        """For a request that finds nobody else: now that the device is at work, sampling can prepare for it."""
        if self._unannounced:
            self._unannounced = False
            os.eventfd_write(self._rings.rows_fd, 1)

    def _publish_gauges(self) -> None:
        if self._gauges is not None:
            self._gauges.publish(self.scheduler, self.steps_planned)
            self._intake.publish_gauges(len(self.scheduler.waiting))

    @property
    def under_way(self) -> int:
        """Steps that are planned and whose results are not known."""
        return self.steps_planned - self.steps_done

    @property
    def may_plan(self) -> bool:
        """Whether another step may be under way; in a quarantine it must be the only one."""
        return self.under_way < (PLAIN if self.scheduler.quarantined else self._depth)

    # ---- what the loop does ---------------------------------------------------------------------------------

    def take_results(self) -> bool:
        """Apply the results of steps that are done; False if there are none."""
        moved = False
        while (slot := self._rings.results.try_read()) is not None:
            views = self._result_views[slot.index]
            self._apply(views, int(views.head[Head.ROWS]))
            slot.release()
            self.steps_done += 1
            moved = True
        return moved

    def _apply(self, views: ResultsColumns, rows: int) -> None:
        columns = (views.rows, views.epochs, views.counts, views.ids, views.finished, views.wishes)
        scheduler = self.scheduler
        for row, epoch, count, ids, finished, wish in zip(*(each[:rows].tolist() for each in columns), strict=True):
            if count:
                scheduler.on_tokens(row, epoch, ids[:count], finished=bool(finished), wish=wish)
            else:
                scheduler.on_no_token(row, epoch)

    def take_request(self) -> bool:
        """Queue one prompt that was tokenized, and handle one message of the front; False if there is neither. One at
        a time: steps must not wait for them."""
        finished = self._intake.finish()
        record = self._rings.requests.try_read()
        if record is None:
            return finished
        with record:
            message = bytes(record)
        self._intake.take(message)
        return True

    def send_replies(self) -> None:
        """To the front: what became of requests since the last time."""
        if self._unsent:
            self._rings.replies.write_many(self._unsent)
            self._unsent.clear()

    def plan_step(self) -> bool:
        """Write and publish the next descriptor, then what became of requests; False if there is nothing to
        compute."""
        planned = self._plan_step()
        self.send_replies()
        return planned

    def _plan_step(self) -> bool:
        if not self.scheduler.has_work:
            return False
        slot = self._rings.steps.reserve()
        if self._step_limits is not None:
            self._heed_compilation(self._step_limits)
        begun_ns = time.clock_gettime_ns(_NS)
        self._intake.note_pace(begun_ns)
        plan = self.scheduler.plan()
        if plan is None:
            slot.abandon()
            return False
        number, views = self.steps_planned + 1, self._step_views[slot.index]
        plan.write(views, slot.index, number, self.scheduler.blocks.block_size)
        self.scheduler.commit(plan)
        self._publish_admissions(number)
        views.stamps[:] = 0
        views.stamps[Stamp.BEGUN], views.stamps[Stamp.SCHEDULED] = begun_ns, time.clock_gettime_ns(_NS)
        slot.publish()
        self.steps_planned = number
        return True

    def _heed_compilation(self, step_limits: Callable[[], StepLimits]) -> None:
        """Until all buckets are compiled. What was read may be old, but buckets only become more, unless
        inference is restarted, and then this stage gets other rings."""
        (tokens, samples, drafted, final), shapes = step_limits(), self._shapes
        self.scheduler.limit_step(tokens or shapes.token_budget, samples or shapes.samples, drafted or shapes.samples)
        if final:
            self._step_limits = None

    def _publish_admissions(self, step: int) -> None:
        """To sampling: which request has which row from this step on, before it can see the step. To the front: what
        it must know of a request before its first token."""
        if not self.scheduler.admissions:
            return
        self._unannounced = not self.under_way
        for sequence in self.scheduler.admissions:
            if sequence.row >= 0:
                self._rings.rows.write(sequence.assign(step).pack())
                if sequence.fresh:
                    waited = time.clock_gettime_ns(_NS) - sequence.arrival_ns
                    self._unsent.append(Started(sequence.request, sequence.attempt, waited, sequence.cached).pack())
        self.scheduler.admissions.clear()
        self.send_replies()
