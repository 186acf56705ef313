"""The overhead benchmark as a user runs it: its JSON, its tables, its judgement. No time is asserted.

That all variants give the same texts is checked by the benchmark itself, which fails otherwise: so this is also the
test of the replaced data path.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from overhead_bench.report import figures, judge

from overhead_bench.client import StreamError
from overhead_bench.measure import Cell, Plan, Results, TextError, compare_texts, inter_token_ms
from overhead_bench.variants import VARIANTS, choose

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench_overhead.py"
ROW = {
    "variant", "batch", "rounds", "tokens", "itl_p50_ms", "itl_p99_ms", "bare_p50_ms", "overhead_p50_ms",
    "overhead_p99_ms", "ratio_to_replaced", "cpu_percent", "parts_us",
}  # fmt: skip
PARTS = {"schedule", "wait_for_descriptor", "launch", "device", "publish", "sample", "feedback", "front"}


def run(*arguments):
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    path = tmp_path_factory.mktemp("bench") / "bench.json"
    before = {segment.name for segment in Path("/dev/shm").iterdir() if segment.name.startswith("psm_")}
    done = run("--quick", "--json", str(path))
    assert done.returncode == 0, done.stderr
    assert "leaked" not in done.stderr
    after = {segment.name for segment in Path("/dev/shm").iterdir() if segment.name.startswith("psm_")}
    assert after <= before
    return json.loads(path.read_text()) | {"stdout": done.stdout}


def test_every_variant_is_there_at_every_batch(told):
    assert [(row["variant"], row["batch"]) for row in told["results"]] == [
        (variant.name, batch) for variant in VARIANTS for batch in (1, 4)
    ]
    assert told["rounds"] == 1
    assert told["machine"]["usable_cores"] >= 1
    assert told["machine"]["others_cpu_percent"] >= 0


def test_rows_are_complete_and_sane(told):
    for row in told["results"]:
        assert row.keys() == ROW
        assert 0 < row["itl_p50_ms"] <= row["itl_p99_ms"]
        assert row["bare_p50_ms"] >= told["step_ms"]  # the device is never early
        assert row["overhead_p50_ms"] == pytest.approx(row["itl_p50_ms"] - row["bare_p50_ms"], abs=1e-3)
        assert row["tokens"] >= 20
        replaced = row["variant"] == "replaced"
        assert set(row["parts_us"]) == (set() if replaced else PARTS)
        stages = {"server", "agent"} if replaced else {"front", "preprocess", "inference", "sampling"}
        assert set(row["cpu_percent"]) == stages


def test_what_is_printed_says_that_the_device_is_emulated_and_judges(told):
    assert told["device"].startswith("emulated")
    assert "The device is emulated" in told["stdout"]
    assert "load by others" in told["stdout"]
    assert "target at batch 1: at most 0.3 ms" in told["stdout"]
    (judgement,) = told["targets"]
    assert judgement["met"] == (judgement["measured_ms"] <= judgement["target_ms"])


def plan(batches=(1, 32), rounds=1):
    return Plan(batches, 10.0, 1.0, rounds, choose("ringserve,replaced"))


def cell(itl, bare, texts=("a",)):
    return Cell(np.array(itl), np.array(bare), {"front": 1.0}, {}, texts)


def test_overhead_is_the_latency_less_the_bare_step_of_the_same_round():
    results = Results()
    for itl, bare in (([10.2, 10.3, 10.4], [10.0]), ([11.6, 11.7, 11.8], [11.0]), ([10.1, 10.1, 10.1], [10.0])):
        results.add("ringserve", 1, cell(itl, bare))
        results.add("replaced", 1, cell([value + 3 for value in itl], bare))
    own, old = figures(results, plan((1,), rounds=3))
    assert own.overhead_p50_ms == pytest.approx(0.3)
    assert own.bare_p50_ms == 10.0
    assert old.overhead_p50_ms == pytest.approx(3.3)
    assert own.ratio_to_replaced == 11.0
    (judgement,) = judge([own, old])
    assert judgement.met
    assert (judgement.batch, judgement.target_ms) == (1, 0.3)


def test_a_target_is_missed_by_what_is_above_it():
    results = Results()
    for batch, itl in ((1, 10.31), (32, 10.99)):
        results.add("ringserve", batch, cell([itl], [10.0]))
        results.add("replaced", batch, cell([15.0], [10.0]))
    assert [judgement.met for judgement in judge(figures(results, plan()))] == [False, True]


def test_only_the_time_in_which_all_streams_run_counts():
    late = np.arange(0, 400, 10)[None] * 1_000_000
    times = np.concatenate([late, late + 50_000_000])
    times[0, 3] += 5_000_000  # before the second stream has settled
    times[1, -2] += 5_000_000  # after the first has ended
    assert set(inter_token_ms(times)) == {10.0}
    with pytest.raises(StreamError, match="did not overlap"):
        inter_token_ms(np.concatenate([late, late + 1_000_000_000]))


def test_different_texts_are_an_error():
    results = Results()
    results.add("ringserve", 1, cell([1.0], [1.0], ("one",)))
    results.add("replaced", 1, cell([1.0], [1.0], ("two",)))
    with pytest.raises(TextError, match="replaced and ringserve"):
        compare_texts(results, plan((1,)))


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--only", "ringserv"), "unknown variant 'ringserv'"),
        (("--batches", "0"), "numbers from 1"),
        (("--batches", "1,x"), "invalid literal"),
        (("--seconds", "1000"), "more than fit"),
        (("--rounds", "0"), "at least 1"),
    ],
)
def test_wrong_options_are_told(arguments, word):
    done = run(*arguments)
    assert done.returncode == 2
    assert word in done.stderr


def test_a_server_that_does_not_start_is_told():
    done = run("--quick", "--only", "ringserve", "--set", "pipeline.spin_us.inference=-1")
    assert done.returncode == 1
    assert "RingServe did not start" in done.stderr
    assert "spin_us" in done.stderr
