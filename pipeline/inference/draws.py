"""Tokens that are drawn from the device's candidates, where these tell what a draw from all logits would give.

The sampler's own kernel, with its numbers: so it does not show in a text where its tokens were drawn. Of positions
whose candidates do not tell, the logits are fetched, and sampling draws.
"""

from __future__ import annotations

import numpy as np

from model.runner import Best
from model.sampling import Drawer
from pipeline.stats import Counters, InferenceCounter
from pipeline.wire.step import DRAW_NUMBERS, Float32, Float64, Int32, LogitsColumns, Shapes, StepColumns, UInt64


class Draws:
    def __init__(self, shapes: Shapes, counters: Counters | None) -> None:
        self._drawer, self._counters = Drawer(shapes.vocab_size), counters
        self._seeds: UInt64 = np.zeros(shapes.samples, np.uint64)
        self._by: Float64 = np.zeros((shapes.samples, DRAW_NUMBERS))
        self._no_sums: Float64 = np.full(shapes.samples, np.nan)
        self._none: Int32 = np.zeros(0, np.int32)
        self._prepared: tuple[Int32, Float32, Float64, Int32, UInt64, Float64, Int32] | None = None  # for the kernel

    def prepare(self, step: StepColumns, rows: Int32, best: Best, out: LogitsColumns) -> None:
        """For positions in these ``rows`` ``[n]`` of the step, while the device computes what comes into ``best``."""
        n = len(rows)
        seeds, by = self._seeds[:n], self._by[:n]
        sums = self._no_sums if best.log_sum_exp is None else best.log_sum_exp
        step.seeds.take(rows, out=seeds, mode="clip")  # "raise" would copy once more
        step.draws.take(rows, axis=0, out=by, mode="clip")
        assert best.logits is not None
        self._prepared = best.ids[:n], best.logits[:n], sums[:n], out.lengths[:n], seeds, by, out.tokens[:n]

    def draw(self) -> Int32:
        """Fill the tokens of what is prepared: the argmax where nothing is to be drawn. Returns the positions whose
        candidates do not tell."""
        assert self._prepared is not None
        unknown = self._drawer.draw(*self._prepared)
        ids, tokens = self._prepared[0], self._prepared[-1]
        if self._counters is not None:
            self._counters.add(InferenceCounter.DRAWN, len(tokens) - unknown)
            self._counters.add(InferenceCounter.NOT_DRAWN, unknown)
        return np.flatnonzero((tokens < 0) & (ids[:, 0] >= 0)).astype(np.int32) if unknown else self._none
