"""The soak at CI's scale. It sees what leaks by the request; what leaks by the hour is for `--minutes`."""

from __future__ import annotations

import pytest

from scripts.verify import soak
from scripts.verify.survival.mischief import BAD
from scripts.verify.survival.session import EMULATED
from scripts.verify.survival.soaking import Outcome, Soak, run

STILL_WARMING_UP = 0.03  # of the memory that Python's allocator has not yet claimed after so short a time


@pytest.mark.timeout(300)
def test_nothing_grows_under_mixed_load(capsys):
    sets = ("pipeline.runner.cost_model.fixed_ms=5",)
    report = run(Soak(EMULATED, sets, seconds=30, tokens=40, growth=STILL_WARMING_UP))
    soak.show(report)
    told = capsys.readouterr().out
    assert not report.wrong, told
    assert not report.tally.wrong, told
    assert set(report.memory) == {"launcher", "front", "preprocess", "inference", "sampling"}
    assert len(report.done) == 4
    assert report.tally.tokens > 1000
    assert max(report.running) > 16


def test_growth_is_that_of_the_second_half():
    first = list(range(50, 100))
    begun_anew = [*range(90, 100), *[100] * 40]
    report = Outcome(
        memory={"steady": first + [100] * 50, "warm": first + begun_anew, "leaks": [*first, *range(100, 150)]}
    )
    assert report.growth("steady") == report.growth("warm") == 0
    assert report.growth("leaks") == pytest.approx(30 / 114.5, rel=0.02)
    assert report.early_growth("leaks") == pytest.approx(30 / 64.5, rel=0.02)


def test_threads_that_come_and_go_are_no_growth():
    report = Outcome()
    assert report.more([9] * 50 + [5, 7] * 25) == 0
    assert report.more([5] * 60 + list(range(5, 45))) > 20


def test_bad_requests_are_of_many_kinds():
    assert len({bad.name for bad in BAD}) == len(BAD) >= 10
    assert {status for bad in BAD for status in bad.statuses} >= {400, 404, 405, 413, 422}


def test_options_become_a_plan(monkeypatch):
    monkeypatch.setattr("sys.argv", ["soak.py", "--minutes", "2", "--growth", "3", "--set", "a=b", "--seed", "4"])
    plan = soak.parse(soak.arguments())
    assert (plan.seconds, plan.growth, plan.overrides, plan.seed) == (120, 0.03, ("a=b",), 4)
