"""What accounting costs is measured on streams that are served and counted in full."""

from __future__ import annotations

from pipeline.stats import StatsPage, StatsReader
from scripts.bench.accounting import Bench, measure


def test_a_round():
    page = StatsPage.create()
    page.unlink()
    found = measure(Bench(page), tokens=16, rounds=3)
    assert found["tokens"] == 16
    (used,) = StatsReader(page).keys().values()
    assert (used["requests"], used["generated_tokens"]) == (6, 96)  # two of three kinds are counted
