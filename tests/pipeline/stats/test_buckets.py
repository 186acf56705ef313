"""Each bucket of each histogram."""

from __future__ import annotations

import pytest

from pipeline.stats import Histograms, RequestHistogram, StatsReader, StepHistogram, edges, scale


@pytest.mark.parametrize("histogram", [*StepHistogram, *RequestHistogram])
def test_every_bucket_of_a_histogram(page, histogram):
    histograms = Histograms(page, type(histogram))
    ladder = edges(histogram)
    for edge in ladder:
        histograms.observe(histogram, round(edge * scale(histogram)))  # an edge belongs to the bucket below it
    histograms.observe(histogram, round(ladder[-1] * scale(histogram)) + 1, count=5)
    seen = StatsReader(page).histogram(histogram)
    assert seen.counts == (1,) * len(ladder) + (5,)
    assert seen.count == len(ladder) + 5
    assert seen.sum == pytest.approx(sum(ladder) + 5 * (ladder[-1] + 1 / scale(histogram)), rel=1e-6)
    others = [other for other in [*StepHistogram, *RequestHistogram] if other is not histogram]
    assert not any(sum(StatsReader(page).histogram(other).counts) for other in others)
