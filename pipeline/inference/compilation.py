"""Buckets that are compiled while the server serves already.

MindSpore can't compute while it compiles, in another thread neither (it refuses: "nested execution"). So a bucket is
compiled between two steps, and every stream stands still meanwhile. When no step has come for a while, that disturbs
nobody. Under load, only a bucket that steps have missed is worth it, and only when enough time has passed since the
last one: streams stand still for a tenth of the time at most. Steps are padded to a larger bucket until then.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator

import numpy as np

from model.layout import compile_order, first_buckets, padding, shape_name, smallest_bucket
from model.runner import Bucket, Progress, Runner
from pipeline.runtime.generations import END
from pipeline.stats import Counters, InferenceCounter, PauseMeter

IDLE_S = 0.1
"""Without a step for so long, the next bucket is compiled."""
REST = 10.0
"""Under load: times as long as the last compilation took, until the next one."""

log = logging.getLogger("ringserve.inference")


class Compilation:
    """`ready`: the buckets that are compiled, in ascending order; `remaining`: those that are not yet, the ones first
    that are worth most; `left_out`: those that can't be."""

    def __init__(self, runner: Runner, counters: Counters, pauses: PauseMeter | None = None) -> None:
        self.runner = runner
        self.ready: tuple[Bucket, ...] = ()
        self.remaining = list(compile_order(runner.facts.buckets))
        self.left_out: list[Bucket] = []
        self._counters, self._pauses = counters, pauses
        self._missed: Counter[Bucket] = Counter()  # steps by the bucket that they would have fitted into
        self._took_s = self._ended = 0.0  # the last one
        counters.set(InferenceCounter.BUCKETS, len(runner.facts.buckets))
        counters.set(InferenceCounter.COMPILING, 0)

    def begin(self, progress: Progress, *, early: bool) -> None:
        """Before the server is ready: the first buckets, or all. Raises what the runner does."""
        first = first_buckets(self.remaining) if early and self.runner.compiles else tuple(self.remaining)
        began = time.monotonic()
        self.runner.warm_up(progress, first)
        self._counters.set(InferenceCounter.NOT_DETERMINISTIC, not self.runner.deterministic)
        for bucket in first:
            self.remaining.remove(bucket)
            self._open(bucket)
        self._took_s, self._ended = (time.monotonic() - began) / len(first), time.monotonic()

    def note(self, tokens: int, rows: int, samples: int, *, prompts: bool) -> None:
        """A step was done. One with prompts that is as large as a step may be would have been larger, had a larger
        bucket been there: they were cut."""
        tokens += prompts and tokens == self.ready[-1].tokens
        fitting = smallest_bucket(self.runner.facts.buckets, tokens, rows, samples)
        if fitting is not None and fitting not in self.ready:
            self._counters.add(InferenceCounter.UNCOMPILED_STEPS)
            if fitting in self.remaining:
                self._missed[fitting] += 1

    @property
    def is_due(self) -> bool:
        """A bucket has been missed, and streams have been served for long enough since the last compilation."""
        return bool(self._missed) and time.monotonic() - self._ended >= REST * self._took_s

    def compile_next(self) -> None:
        """One bucket: the one that steps have missed most. One that can't be compiled is left out for good."""
        bucket = max(self.remaining, key=lambda bucket: self._missed[bucket])  # of equal ones the first
        self.remaining.remove(bucket)
        self._missed.clear()
        began = time.monotonic()
        with self._announced():
            try:
                self.runner.compile(bucket)
                self._open(bucket)
            except Exception:
                self.left_out.append(bucket)
                log.exception("the bucket %s can't be compiled: steps are padded to others", shape_name(bucket))
        self._ended = time.monotonic()
        self._took_s = self._ended - began
        if bucket in self.ready:
            done, total = len(self.ready), len(self.runner.facts.buckets)
            log.info("compiled %s in %.1f s: %d of %d buckets", shape_name(bucket), self._took_s, done, total)

    @contextlib.contextmanager
    def _announced(self) -> Iterator[None]:
        """Supervision must not take it for a hang; nor may its garbage collections count as some of the step path.
        An exit in the midst of it would come as another error."""
        before = signal.signal(END, _leave_at_once)
        self._counters.set(InferenceCounter.COMPILING, 1)
        if self._pauses is not None:
            self._pauses.stop()
        try:
            yield
        finally:
            if self._pauses is not None:
                self._pauses.start()
            self._counters.set(InferenceCounter.COMPILING, 0)
            signal.signal(END, before)

    def _open(self, bucket: Bucket) -> None:
        """Steps may be padded to it from now on."""
        before = self.ready[-1].samples if self.ready else 0
        if not self.ready or bucket > self.ready[-1]:
            self._rehearse(bucket)
        self.ready = tuple(sorted({*self.ready, bucket}))
        self._counters.set(InferenceCounter.COMPILED, len(self.ready))
        largest = self.ready[-1]
        self._counters.set(InferenceCounter.STEP_DRAFTED, max(bucket.samples for bucket in self.ready))
        # A larger bucket may sample fewer positions: who reads in between must not plan for more than either has.
        self._counters.set(InferenceCounter.STEP_SAMPLES, min(largest.samples, before))
        self._counters.set(InferenceCounter.STEP_TOKENS, largest.tokens)
        self._counters.set(InferenceCounter.STEP_SAMPLES, largest.samples)

    def _rehearse(self, bucket: Bucket) -> None:
        """How long the largest step takes, padding alone: until there are others, what supervision goes by. A slow
        device must not be taken for one that hangs."""
        runner = self.runner
        binding = runner.bind(padding(bucket, runner.facts))
        began = time.monotonic_ns()
        runner.step(binding, np.zeros((0, runner.facts.vocab_size), np.float32))  # no position of it is sampled
        runner.abandon()
        self._counters.set(InferenceCounter.REHEARSAL_NS, time.monotonic_ns() - began)


def _leave_at_once(*_: object) -> None:
    os._exit(0)
