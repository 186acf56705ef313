"""Metrics against numbers worked out by hand, and against definitions written down a second time, naively."""

from __future__ import annotations

import random
import statistics

import pytest

from scripts.bench.serving.apis import Answer
from scripts.bench.serving.metrics import compute, peak_concurrency, peak_tokens_per_s, summarize, tpot_s


def answer(start, ttft, itl=(), *, tokens=None, latency=None, prompt=10, success=True):
    return Answer(
        success=success,
        start_time=start,
        latency=ttft + sum(itl) if latency is None else latency,
        ttft=ttft,
        itl=tuple(itl),
        prompt_tokens=prompt,
        output_tokens=len(itl) + 1 if tokens is None else tokens,
    )


THREE = [
    answer(1.0, 0.1, (0.02, 0.04)),  # 1.0 to 1.16
    answer(1.1, 0.3, (0.05,)),  # 1.1 to 1.45
    answer(2.0, 0.2),  # 2.0 to 2.2, one token
]


def test_a_run_of_three_requests_worked_out_by_hand():
    failed = answer(1.5, 0.0, success=False)
    metrics = compute([*THREE, failed], 2.5, [50, 99], {})
    assert (metrics.completed, metrics.failed) == (3, 1)
    assert (metrics.total_input_tokens, metrics.total_output_tokens) == (30, 6)
    assert metrics.request_throughput == pytest.approx(3 / 2.5)
    assert metrics.output_throughput == pytest.approx(6 / 2.5)
    assert metrics.total_token_throughput == pytest.approx(36 / 2.5)
    assert metrics.request_goodput is None
    assert metrics.score == pytest.approx(2.2 - 1.0)  # not 2.5: from the first start to the last answer
    ttft, tpot, itl, e2el = (metrics.summaries[name] for name in ("ttft", "tpot", "itl", "e2el"))
    assert (ttft.mean, ttft.median) == (pytest.approx(200.0), pytest.approx(200.0))
    assert ttft.std == pytest.approx(81.649658)  # of the population: sqrt((100² + 100² + 0) / 3)
    assert tpot.mean == pytest.approx((30.0 + 50.0) / 2)  # a request of one token has none
    assert itl.mean == pytest.approx((20.0 + 40.0 + 50.0) / 3)
    assert itl.median == pytest.approx(40.0)
    assert e2el.mean == pytest.approx((160.0 + 350.0 + 200.0) / 3)
    assert itl.percentiles[99] == pytest.approx(49.8)  # 40 + 0.98 * 10


def test_tokens_that_came_together_count_in_tpot_as_the_server_counts_them():
    """Five tokens in three pieces: ITL has two gaps, TPOT divides by four."""
    bundled = answer(0.0, 0.1, (0.2, 0.2), tokens=5)
    assert tpot_s(bundled) == pytest.approx(0.1)
    assert compute([bundled], 1.0, [99], {}).summaries["itl"].median == pytest.approx(200.0)


@pytest.mark.parametrize(
    ("objectives", "good"),
    [
        ({"ttft": 100.0}, 1),  # at the limit is within it
        ({"ttft": 99.0}, 0),
        ({"ttft": 300.0, "tpot": 30.0}, 2),  # one token: a TPOT of 0
        ({"tpot": 0.0}, 1),
        ({"e2el": 200.0}, 2),
        ({"ttft": 1000.0, "tpot": 1000.0, "e2el": 1000.0}, 3),
    ],
)
def test_goodput_counts_requests_that_hold_every_objective(objectives, good):
    assert compute(THREE, 2.0, [99], objectives).request_goodput == pytest.approx(good / 2.0)


def test_failed_requests_are_not_good():
    assert compute([answer(0, 0.0, success=False)], 2.0, [99], {"ttft": 1e9}).request_goodput == 0


def test_the_peak_is_exact_and_ends_do_not_overlap_starts():
    assert peak_concurrency(THREE) == 2
    back_to_back = [answer(float(i), 1.0) for i in range(5)]
    assert peak_concurrency(back_to_back) == 1
    assert peak_concurrency([]) == 0
    short = [answer(0.0, 10.0), answer(3.0001, 0.0001), answer(3.00015, 0.0001)]  # never seen by a sample per second
    assert peak_concurrency(short) == 3


def test_peak_tokens_are_those_of_the_busiest_second_after_the_first_start():
    assert peak_tokens_per_s(THREE) == 5
    assert peak_tokens_per_s([answer(5.0, 0.5, (0.4, 0.2, 0.1))]) == 2  # 5.5, 5.9 | 6.1, 6.2


def test_random_answers_against_the_definitions():
    rng = random.Random(3)
    answers = [
        answer(rng.uniform(0, 9), rng.uniform(0.01, 0.5), [rng.uniform(0.001, 0.1) for _ in range(rng.randrange(40))])
        for _ in range(200)
    ]
    metrics = compute(answers, 12.0, [0, 25, 100], {"tpot": 45.0, "e2el": 1500.0})
    gaps = [1000 * gap for one in answers for gap in one.itl]
    tpots = [1000 * statistics.fmean(one.itl) for one in answers if one.itl]
    assert metrics.summaries["itl"].mean == pytest.approx(statistics.fmean(gaps))
    assert metrics.summaries["itl"].std == pytest.approx(statistics.pstdev(gaps))
    assert metrics.summaries["tpot"].median == pytest.approx(statistics.median(tpots))
    lower = statistics.quantiles(gaps, n=4, method="inclusive")[0]
    assert metrics.summaries["itl"].percentiles[25] == pytest.approx(lower)
    assert metrics.summaries["itl"].percentiles[0] == pytest.approx(min(gaps))
    assert metrics.summaries["itl"].percentiles[100] == pytest.approx(max(gaps))
    good = sum((not a.itl or statistics.fmean(a.itl) <= 0.045) and a.latency <= 1.5 for a in answers)
    assert metrics.request_goodput == pytest.approx(good / 12.0)
    moments = sorted({one.start_time for one in answers})
    naive = max(sum(a.start_time <= t < a.start_time + a.latency for a in answers) for t in moments)
    assert metrics.max_concurrent_requests == naive
    assert metrics.max_output_tokens_per_s <= metrics.total_output_tokens


def test_nothing_gives_zeros():
    metrics = compute([], 1.0, [99], {})
    assert metrics.completed == metrics.max_concurrent_requests == metrics.score == 0
    assert summarize([], [99]).percentiles == {99: 0.0}
