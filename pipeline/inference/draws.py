"""Tokens that are drawn from the device's candidates, where these tell what a draw from all logits would give.

The sampler's own kernel, with its numbers: so it does not show in a text where its tokens were drawn. Of positions
whose candidates do not tell, the logits are fetched, and sampling draws.
"""

from __future__ import annotations

import numpy as np

from model.runner import Best
from model.sampling import Drawer
from pipeline.stats import Counters, InferenceCounter
from pipeline.wire.step import DRAW_NUMBERS, Float64, Int32, LogitsColumns, Shapes, StepColumns, UInt64


class Draws:
    """`prepare` while the device computes, then `draw`: it fills the tokens, the argmax where nothing is to be drawn,
    and returns how many positions there are whose candidates do not tell: `unknown` says which."""

    def __init__(self, shapes: Shapes, counters: Counters | None) -> None:
        self._drawer, self._counters = Drawer(shapes.vocab_size), counters
        self._seeds: UInt64 = np.zeros(shapes.samples, np.uint64)
        self._by: Float64 = np.zeros((shapes.samples, DRAW_NUMBERS))
        self._no_sums: Float64 = np.full(shapes.samples, np.nan)
        self._best: Int32 = np.zeros(0, np.int32)  # of each prepared position the first candidate
        self._tokens: Int32 = self._best
        self.draw = self._drawer.draw  # the device waits meanwhile: no call around it

    def prepare(self, step: StepColumns, rows: Int32, best: Best, out: LogitsColumns) -> None:
        """For positions in these ``rows`` ``[n]`` of the step, whose candidates will come into ``best``."""
        n = len(rows)
        seeds, by = self._seeds[:n], self._by[:n]
        sums = self._no_sums if best.log_sum_exp is None else best.log_sum_exp
        step.seeds.take(rows, out=seeds, mode="clip")  # "raise" would copy once more
        step.draws.take(rows, axis=0, out=by, mode="clip")
        assert best.logits is not None
        ids, self._tokens = best.ids[:n], out.tokens[:n]
        self._best = ids[:, 0]
        self._drawer.prepare(ids, best.logits[:n], sums[:n], out.lengths[:n], seeds, by, self._tokens)

    def unknown(self) -> Int32:
        return np.flatnonzero((self._tokens < 0) & (self._best >= 0)).astype(np.int32)

    def count(self, unknown: int) -> None:
        """So many of the positions that were prepared."""
        if self._counters is not None:
            self._counters.add(InferenceCounter.DRAWN, len(self._tokens) - unknown)
            self._counters.add(InferenceCounter.NOT_DRAWN, unknown)
