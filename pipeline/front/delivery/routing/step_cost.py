"""What steps cost on the device in use, by the log of the last ones; and what the router weighs with."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from pipeline.front.delivery.routing.router import Weights
from pipeline.stats import StepColumn
from pipeline.wire.step import Int64, Stamp

LEAST_STEPS, MOST_STEPS = 64, 1024
"""That are looked at: the last ones. A quarter of the least must have prompts."""

_OUTLIER = 5.0  # times the usual error: a step that was compiled, a process that had no CPU
_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class StepCost:
    """Milliseconds. A row that decodes costs its token, its part of the head, and the reading of its context."""

    fixed_ms: float
    per_prompt_token_ms: float
    per_row_ms: float

    @classmethod
    def measured(cls, steps: Int64) -> StepCost | None:
        """Of records as `StatsReader.steps` returns them, `[n, 16]`; None if they are too few to tell."""
        steps = steps[-MOST_STEPS:]
        stamps = steps[:, StepColumn.STAMPS :]
        rows = steps[:, StepColumn.DECODE_ROWS].astype(np.float64)
        prompts = steps[:, StepColumn.TOKENS] - rows
        if len(steps) < LEAST_STEPS or np.count_nonzero(prompts) < LEAST_STEPS // 4:
            return None
        ms = (stamps[:, Stamp.COMPUTED] - stamps[:, Stamp.LAUNCHED]) / 1e6
        causes = np.stack([np.ones(len(rows)), prompts, rows], axis=1)
        errors = np.abs(causes @ _fit(causes, ms) - ms)
        usual = errors <= _OUTLIER * np.median(errors) + 1e-9
        return cls(*_fit(causes[usual], ms[usual]).tolist())

    def weights(self, rows: int, token_budget: int) -> Weights:
        """Of a replica with so many rows.

        A token of a prompt takes its own time and its part of a full step's. A row that is there slows all steps of
        a newcomer until one of the two has ended, after half an answer in the mean; a delay of the answer counts
        half of one of the first token, hence a quarter. A row becomes free whenever a row's part of the steps of an
        answer has passed."""
        token_ms = self.per_prompt_token_ms + self.fixed_ms / token_budget
        if token_ms <= 0:
            return Weights(rows=rows)
        row = _SHARE * self.per_row_ms / token_ms
        return Weights(row, (self.fixed_ms / rows + self.per_row_ms) / token_ms, rows)


def _fit(causes: NDArray[np.float64], ms: NDArray[np.float64]) -> NDArray[np.float64]:
    """`[k]` factors, none of them negative, with the least squares of errors; `causes` `[n, k]`."""
    products, results, k = causes.T @ causes, causes.T @ ms, causes.shape[1]
    best, least = np.zeros(k), math.inf
    for size in range(k, 0, -1):
        for chosen in map(list, combinations(range(k), size)):
            factors = np.zeros(k)
            factors[chosen] = np.linalg.lstsq(products[np.ix_(chosen, chosen)], results[chosen], rcond=None)[0]
            error = float(factors @ products @ factors - 2 * factors @ results)
            if factors.min() >= 0 and error < least:
                best, least = factors, error
    return best
