"""The measurement of waiting beside a model: it runs, and says what was measured."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_every_manner_of_waiting_is_measured(tmp_path):
    out = tmp_path / "waiting.json"
    process = subprocess.Popen(
        [sys.executable, "-m", "scripts.bench.waiting", "--rounds", "1", "--json", str(out)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    said, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    timings = json.loads(out.read_text())["timings"]
    assert [timing["spin_us"] for timing in timings] == [None, 0, 100, 50000]  # all CPUs are the model's
    assert all(timing["steps"] == 40 and timing["median_ms"] > 0 for timing in timings)
    assert timings[0]["ratio"] == 1
    assert said.count("|") == 7 * (2 + len(timings))
    assert not [path for path in Path("/dev/shm").iterdir() if f"-{process.pid}-" in path.name]


def test_arguments_that_make_no_sense():
    done = subprocess.run(
        [sys.executable, "-m", "scripts.bench.waiting", "--rounds", "0"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "at least 1" in done.stderr
