"""What steps cost, from records made of known costs."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.front.delivery.routing.router import Weights
from pipeline.front.delivery.routing.step_cost import LEAST_STEPS, StepCost
from pipeline.stats import StepColumn
from pipeline.wire.step import Int64, Stamp

RNG = np.random.default_rng(3)
ASCEND = StepCost(22.0, 0.09, 0.3)


def records(cost: StepCost, prompts: Int64, rows: Int64, noise_ms: float = 0.0) -> Int64:
    steps = np.zeros((len(rows), 16), np.int64)
    steps[:, StepColumn.TOKENS], steps[:, StepColumn.DECODE_ROWS] = prompts + rows, rows
    ms = cost.fixed_ms + cost.per_prompt_token_ms * prompts + cost.per_row_ms * rows
    ms += np.abs(RNG.normal(0, noise_ms, len(rows)))
    steps[:, StepColumn.STAMPS + Stamp.LAUNCHED] = 10**12
    steps[:, StepColumn.STAMPS + Stamp.COMPUTED] = 10**12 + (1e6 * ms).astype(np.int64)
    return steps


def mixed(count: int) -> tuple[Int64, Int64]:
    prompts = np.where(RNG.random(count) < 0.3, RNG.integers(1, 480, count), 0)
    return prompts, RNG.integers(1, 32, count)


def assert_near(found: StepCost | None, cost: StepCost, tolerance: float) -> None:
    assert found is not None
    for name in ("fixed_ms", "per_prompt_token_ms", "per_row_ms"):
        right = getattr(cost, name)
        assert getattr(found, name) == pytest.approx(right, rel=tolerance, abs=0 if right else 0.02)


@pytest.mark.parametrize("cost", [ASCEND, StepCost(0.0, 1.2, 1.5), StepCost(9.0, 0.0, 0.2), StepCost(9.0, 0.1, 0.0)])
def test_costs_are_found(cost: StepCost) -> None:
    assert_near(StepCost.measured(records(cost, *mixed(400))), cost, 0.01)
    assert_near(StepCost.measured(records(cost, *mixed(4000), noise_ms=0.02)), cost, 0.1)


def test_steps_that_took_unusually_long_are_left_out() -> None:
    steps = records(ASCEND, *mixed(1000), noise_ms=0.1)
    steps[::50, StepColumn.STAMPS + Stamp.COMPUTED] += 3 * 10**9
    assert_near(StepCost.measured(steps), ASCEND, 0.1)


def test_too_few_steps_tell_nothing() -> None:
    prompts, rows = mixed(LEAST_STEPS - 1)
    assert StepCost.measured(records(ASCEND, prompts, rows)) is None
    rows = RNG.integers(1, 32, 1000)
    assert StepCost.measured(records(ASCEND, np.zeros(1000, np.int64), rows)) is None


def test_no_cost_is_negative() -> None:
    """Where the longer steps have the shorter prompts."""
    steps = records(StepCost(20.0, 0.0, 0.0), *mixed(500))
    steps[:, StepColumn.STAMPS + Stamp.COMPUTED] -= 10_000 * steps[:, StepColumn.TOKENS]
    found = StepCost.measured(steps)
    assert found is not None
    assert min(found.fixed_ms, found.per_prompt_token_ms, found.per_row_ms) >= 0


def test_weights_of_the_devices() -> None:
    """The defaults are those of a 910B4, with a context of 300 tokens."""
    found, default = StepCost(22.35, 0.0926, 0.0945 + 300 * 0.00089).weights(32, 512), Weights()
    assert found.row == pytest.approx(default.row, rel=0.1)
    assert found.turn == pytest.approx(default.turn, rel=0.1)
    slow = StepCost(5.0, 1.0, 1.3).weights(8, 64)  # a CPU, where arithmetic counts
    assert (slow.row, slow.turn, slow.rows) == (pytest.approx(0.3, rel=0.1), pytest.approx(1.8, rel=0.1), 8)
    assert StepCost(0.0, 0.0, 0.0).weights(8, 64) == Weights(rows=8)
