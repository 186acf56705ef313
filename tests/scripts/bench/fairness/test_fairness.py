"""A greedy key costs a modest one little, in simulated time; in order of arrival it costs it everything."""

import numpy as np
import pytest

from scripts.bench.fairness.__main__ import simulate
from scripts.bench.fairness.scenarios import ALONE, FAIR, FIFO, MODEST, SCENARIOS, goals, measure
from scripts.bench.fairness.simulation import Asked, Simulation

SECONDS = 12.0


def test_the_goals_and_what_they_are_measured_against():
    rows = measure(simulate, SCENARIOS, SECONDS)
    assert [goal.met for goal in goals(rows, SCENARIOS)] == [True] * (2 * len(SCENARIOS) - 1)
    got = {(row.scenario, row.order): row for row in rows}
    for scenario in SCENARIOS:
        assert got[scenario.name, FIFO].requests == 0
        alone, fair = got[scenario.name, ALONE], got[scenario.name, FAIR]
        assert alone.requests > 0 == alone.greedy_rate
        assert fair.requests > 0 < fair.greedy_rate


def asked(count, key, weight=1.0, priority=0, at_s=0.0, prompt=100, output=100):
    return [Asked(at_s, key, prompt, output, weight, priority) for _ in range(count)]


def rates(*requests, seconds=20.0):
    seen = Simulation([one for many in requests for one in many], fair=True).run(seconds)
    return [seen.rate(key, 2.0, seconds) for key in range(1, len(requests) + 1)]


def test_tokens_are_shared_by_weight():
    heavy, light = rates(asked(500, 1, weight=3.0), asked(500, 2))
    assert heavy / light == pytest.approx(3, rel=0.1)


def test_a_class_behind_another_gets_what_that_leaves():
    first, behind = rates(asked(400, 1, priority=0), asked(400, 2, priority=1))
    assert first > 50 * behind
    few, behind = rates(asked(8, 1, priority=0, output=3000), asked(400, 2, priority=1))
    assert few > 200
    assert behind > 200


def test_what_a_key_did_before_is_no_credit_and_no_debt():
    """It had nothing for ten seconds; then both get the half."""
    requests = [*asked(1000, 1), *asked(400, MODEST, at_s=10.0)]
    seen = Simulation(requests, fair=True).run(20.0)
    both = np.array([[seen.rate(key, at, at + 2.0) for key in (1, MODEST)] for at in (12.0, 14.0, 16.0, 18.0)])
    assert both[:, 0] == pytest.approx(both[:, 1], rel=0.15)
