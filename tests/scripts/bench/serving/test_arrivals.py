"""When requests start."""

from __future__ import annotations

import math

import numpy as np
import pytest

from scripts.bench.serving.workload import arrival_times_s


def times(count, rate, burstiness=1.0, seed=0, **options):
    return arrival_times_s(count, rate, burstiness, np.random.default_rng(seed), **options)


def test_infinity_is_all_at_once():
    assert times(5, math.inf).tolist() == [0.0] * 5


def test_infinite_burstiness_is_a_metronome():
    assert times(4, 2.0, math.inf) == pytest.approx([0.5, 1.0, 1.5, 2.0])


def test_the_same_seed_gives_the_same_times_and_another_seed_others():
    assert np.array_equal(times(100, 3.0), times(100, 3.0))
    assert not np.array_equal(times(100, 3.0), times(100, 3.0, seed=1))


@pytest.mark.parametrize("seed", range(3))
def test_the_last_request_starts_at_count_over_rate(seed):
    assert times(50, 4.0, seed=seed)[-1] == pytest.approx(50 / 4.0)


@pytest.mark.parametrize(("burstiness", "variation"), [(1.0, 1.0), (0.25, 2.0), (4.0, 0.5)])
def test_intervals_are_gamma_distributed(burstiness, variation):
    """The coefficient of variation of a gamma distribution is 1 / sqrt(shape); 20,000 draws are near it."""
    intervals = np.diff(times(20_000, 5.0, burstiness, normalized=False))
    assert intervals.mean() == pytest.approx(0.2, rel=0.05)
    assert intervals.std() / intervals.mean() == pytest.approx(variation, rel=0.08)
    assert (intervals >= 0).all()


def test_a_poisson_process_has_no_memory():
    """Of exponential intervals, those longer than the mean are 1/e, and than twice the mean 1/e²."""
    intervals = np.diff(times(20_000, 1.0, normalized=False))
    assert (intervals > 1).mean() == pytest.approx(math.exp(-1), abs=0.015)
    assert (intervals > 2).mean() == pytest.approx(math.exp(-2), abs=0.015)
