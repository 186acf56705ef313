"""The overhead benchmark as a user runs it: its JSON, its tables, its judgement, its picture. No time is asserted.

That all variants give the same texts is checked by the benchmark itself, which fails otherwise: so this is also the
test of the replaced data path. Not run here: the demo model's sections, which need it compiled, and the picture where
matplotlib is missing.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import load_configuration
from pipeline.runtime.engines import make_runner
from scripts.bench import first_token
from scripts.bench.overhead import tail
from scripts.bench.overhead.device import Device, bare_steps
from scripts.bench.overhead.figures import figures, goals
from scripts.bench.overhead.measure import BETWEEN, Cell, Part, Plan, compare_texts, inter_token_ms, read_stamps
from scripts.bench.overhead.sections import SECTIONS
from scripts.bench.overhead.servers import VARIANTS, choose
from scripts.lab.errors import BenchError

SCRIPT = "scripts.bench.overhead"
ROW = {
    "variant", "batch", "rounds", "tokens", "itl_p50_ms", "itl_p99_ms", "bare_p50_ms", "bare_p99_ms",
    "overhead_p50_ms", "overhead_p99_ms", "overhead_mean_ms", "late_us", "residual_us", "ratio_to_replaced",
    "cpu_percent", "cpu_us_per_token", "parts",
}  # fmt: skip
PARTS = {"wait", "launch", "device", "publish", "sample", "feedback", "detokenize and send", "schedule"}
STAGES = {"launcher", "front", "preprocess", "inference", "sampling"}


def run(*arguments):
    command = [sys.executable, "-m", SCRIPT, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    directory = tmp_path_factory.mktemp("bench")
    path, picture = directory / "bench.json", directory / "bench.png"
    before = {segment.name for segment in Path("/dev/shm").iterdir() if segment.name.startswith("psm_")}
    plot = ("--plot", str(picture)) if find_spec("matplotlib") else ()
    done = run("--quick", "--section", "steps,ttft,null,context,exposed,tail", "--json", str(path), *plot)
    assert done.returncode == 0, done.stderr
    assert "leaked" not in done.stderr
    after = {segment.name for segment in Path("/dev/shm").iterdir() if segment.name.startswith("psm_")}
    assert after <= before
    return json.loads(path.read_text()) | {"stdout": done.stdout, "picture": picture}


def test_every_variant_is_there_at_every_batch(told):
    steps = told["sections"]["steps"]
    assert [(row["variant"], row["batch"]) for row in steps["results"]] == [
        (name, batch) for name in VARIANTS for batch in (1, 4)
    ]
    assert steps["rounds"] == 1
    assert told["machine"]["usable_cores"] >= 1
    assert told["machine"]["others_cpu_percent"] >= 0


def test_rows_are_complete_and_sane(told):
    steps = told["sections"]["steps"]
    for row in steps["results"]:
        assert row.keys() == ROW
        assert 0 <= row["itl_p50_ms"] <= row["itl_p99_ms"]  # 0: a client without a CPU reads most together
        assert row["bare_p50_ms"] >= steps["step_ms"]  # the device is never early
        assert row["overhead_p50_ms"] == pytest.approx(row["itl_p50_ms"] - row["bare_p50_ms"], abs=1e-3)
        assert row["tokens"] >= 20
        replaced = row["variant"] == "replaced"
        assert set(row["parts"]) == (set() if replaced else PARTS)
        assert (
            set(row["cpu_percent"]) == set(row["cpu_us_per_token"]) == ({"server", "agent"} if replaced else STAGES)
        )


def test_stamps_add_up_to_the_time_between_tokens(told):
    for row in told["sections"]["steps"]["results"]:
        if row["variant"] != "replaced":
            total = sum(row["parts"][name]["mean_us"] for name in BETWEEN) + row["residual_us"]
            assert abs(row["residual_us"]) < 0.25 * total, row  # under load; alone it is far below 1 %


def test_the_other_sections(told):
    sections = told["sections"]
    assert [row["context"] for row in sections["context"]["results"]] == [64, 4096]
    (first,) = sections["ttft"]["results"]
    assert first["ttft_p50_ms"] > first["step_ms"] + first["tokenizing_ms"] > 22.5
    assert [row["api"] for row in sections["null"]["results"]] == ["llm-serving", "completions"]
    assert [(row["device_ms"], row["batch"]) for row in sections["exposed"]["results"]] == [(1.0, 1), (1.0, 32)]
    for row in sections["exposed"]["results"]:
        assert row["least_mean_ms"] <= row["mean_ms"]
        assert all(row[name] is None or row[name] > 0 for name in ("wait_us", "launch_us"))  # None: no full step
    assert 0 <= sections["tail"]["excluded_percent"] <= 100
    assert [(row["part"], row["stage"]) for row in sections["tail"]["results"]] == list(tail.STAGE_OF.items())
    found = re.findall(r"of (\d+) (?:tokens|hand-overs) were later", sections["tail"]["title"])
    assert len(found) == 2
    assert min(map(int, found)) > 0
    for row in sections["null"]["results"]:
        assert row["tokens_per_s"] > 100
        assert row["tokens_per_write"] >= 1
        assert min(row[f"{stage}_us"] for stage in STAGES - {"launcher"}) > 0


def test_what_is_printed_says_that_the_device_is_emulated_and_judges(told):
    assert "The device: emulated, 3 ms per step" in told["stdout"]
    assert "load by others" in told["stdout"]
    judged = [goal for section in told["sections"].values() for goal in section["goals"]]
    assert {goal["what"] for goal in judged} >= {
        "time to the first token beside tokenizing and the step, median",
        "null device, completions, 64 streams",
    }
    for goal in judged:
        assert goal["what"] in told["stdout"]
        if goal["measured"] is None:  # of a machine that was too busy to tell
            assert goal["met"] is None
            continue
        assert goal["met"] == (
            goal["measured"] >= goal["goal"] if goal["at_least"] else goal["measured"] <= goal["goal"]
        )


@pytest.mark.skipif(find_spec("matplotlib") is None, reason="matplotlib is not installed")
def test_the_picture_is_one(told):
    data = told["picture"].read_bytes()
    assert data.startswith(b"\x89PNG")
    assert len(data) > 10_000


def test_the_parts_of_a_first_token(tmp_path):
    file = tmp_path / "parts.json"
    command = [
        sys.executable,
        "-m",
        "scripts.bench.first_token",
        "--requests",
        "3",
        "--idle-ms",
        "5",
        "--step-ms",
        "2",
    ]
    done = subprocess.run([*command, "--json", str(file)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    parts = json.loads(file.read_text())["sides"]["here"]
    assert list(parts)[: len(first_token.PARTS)] == list(first_token.PARTS)
    assert parts["the device"] >= 2000
    assert all(name in done.stdout for name in parts)


# ---- the parts ---------------------------------------------------------------------------------------------------


def plan(batches=(1, 32), rounds=1):
    return Plan(Device(22.5), batches, 1.0, rounds, choose("ringserve,replaced"))


def cell(itl, bare, texts=("a",)):
    return Cell(np.array(itl), np.array(bare), {"front": 1.0}, {"front": 9.0}, {}, None, texts)


def test_overhead_is_the_latency_less_the_bare_step_of_the_same_round():
    results = defaultdict(list)
    for itl, bare in (([22.7, 22.8, 22.9], [22.5]), ([24.1, 24.2, 24.3], [23.5]), ([22.6, 22.6, 22.6], [22.5])):
        results["ringserve", 1].append(cell(itl, bare))
        results["replaced", 1].append(cell([value + 9 for value in itl], bare))
    own, old = figures(results, plan((1,), rounds=3))
    assert own["overhead_p50_ms"] == pytest.approx(0.3)
    assert own["bare_p50_ms"] == 22.5
    assert old["overhead_p50_ms"] == pytest.approx(9.3)
    assert own["ratio_to_replaced"] == 31.0
    verdicts = {goal.what: goal.met for goal in goals([own, old], 22.5)}
    assert verdicts["overhead at batch 1, median"] is False
    assert verdicts["times less than the replaced path at batch 1"] is True
    assert goals([own, old], 3.0) == []  # no goals are set for such a device


def test_each_further_row_is_what_the_largest_batch_costs_beyond_the_smallest():
    results = defaultdict(list)
    for batch, over in ((1, 0.1), (32, 0.41)):
        results["ringserve", batch].append(cell([22.5 + over], [22.5]))
        results["replaced", batch].append(cell([30.0], [22.5]))
    judged = {goal.what: goal for goal in goals(figures(results, plan()), 22.5)}
    assert judged["each further row"].measured == pytest.approx(10.0)
    assert judged["each further row"].met


def events(step, begin_us, *, rows=2, tokens=None, publish=True):
    """Of one step of a trace: taken at `begin_us`, launched 5 us later, computed after 100 us more."""
    args = {"step": step, "tokens": tokens or rows, "rows": rows, "decode_rows": rows}
    named = [("launch", 0, 5), ("device", 5, 100)]
    named += [("publish", 105, 7), ("sample", 112, 3)] if publish else []
    return [{"name": name, "ts": begin_us + at, "dur": long, "args": args} for name, at, long in named]


def test_parts_are_those_of_steps_that_follow_one_another():
    trace = [*events(1, 0), *events(2, 125), *events(3, 235), *events(5, 1000), *events(6, 1200, tokens=9)]
    stamps = read_stamps([{"ph": "M"}, *trace], batch=2)
    assert stamps.parts["wait"] == Part(12.5, 12.5, pytest.approx(20, abs=0.2))  # 20 and 5
    assert stamps.parts["launch"].mean_us == 5
    assert stamps.parts["feedback"].mean_us == pytest.approx((15 + 0) / 2)  # 115 → 130, 240 → 240
    assert (stamps.begin_ns, stamps.end_ns) == (105_000, 340_000)
    assert sum(stamps.parts[name].mean_us for name in BETWEEN) * 2 == (340 - 105)
    assert read_stamps(trace, batch=3) is None


def test_a_bare_step_takes_its_time_whatever_the_batch(tmp_path):
    runner = make_runner(load_configuration(Device(1.0).write(tmp_path / "device.yaml", 8)))
    runner.load()
    for rows, greedy in ((1, True), (3, False), (8, True)):
        steps = bare_steps(runner, rows, 4, greedy=greedy)
        assert steps.shape == (4,)
        assert steps.min() >= 1e6
    runner.close()


def test_only_the_time_in_which_all_streams_run_counts():
    late = np.arange(0, 400, 10)[None] * 1_000_000
    times = np.concatenate([late, late + 50_000_000])
    times[0, 3] += 5_000_000  # before the second stream has settled
    times[1, -2] += 5_000_000  # after the first has ended
    assert set(inter_token_ms(times)) == {10.0}
    with pytest.raises(BenchError, match="did not overlap"):
        inter_token_ms(np.concatenate([late, late + 1_000_000_000]))


def test_different_texts_are_an_error():
    compare_texts({"ringserve": ("one two", "x"), "replaced": ("one", "x y")}, 2)  # one cell was longer
    with pytest.raises(BenchError, match="replaced and ringserve gave different texts at batch 2"):
        compare_texts({"ringserve": ("one", "x"), "replaced": ("one", "y")}, 2)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--only", "ringserv"), "unknown variant 'ringserv'"),
        (("--section", "step"), f"unknown section 'step'; there are {', '.join(SECTIONS)}"),
        (("--batches", "0"), "numbers from 1"),
        (("--batches", "1,x"), "1,x: numbers from 1 to 256 expected"),
        (("--seconds", "1000"), "more than the"),
        (("--rounds", "0"), "at least 1"),
        (("--step-ms", "0"), "--section null"),
    ],
)
def test_wrong_options_are_told(arguments, word):
    done = run(*arguments)
    assert done.returncode == 2
    assert word in done.stderr


def test_a_server_that_does_not_start_is_told():
    done = run("--quick", "--section", "steps", "--only", "ringserve", "--set", "pipeline.spin_us.inference=-1")
    assert done.returncode == 1
    assert "the server ended with status" in done.stderr
    assert "spin_us" in done.stderr
