"""The rings' benchmark as a user runs it: its JSON, its tables, its judgement. No time is asserted.

Not covered: the rivals, which need not be installed, and the picture, which needs matplotlib.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scripts.bench.ipc.report import markdown_report, terminal_report
from scripts.bench.ipc.run import run_pair
from scripts.bench.ipc.targets import judge
from scripts.bench.ipc.transports.base import Job, PairSpec
from scripts.lab.paths import ROOT

SCRIPT = "scripts.bench.ipc"
SIZES = {64, 4096, 131072, 4194304}
ROW = {
    "transport",
    "size_bytes",
    "mode",
    "access",
    "pinned",
    "rounds",
    "p50_us",
    "p99_us",
    "p999_us",
    "max_us",
    "msgs_per_s",
}
LATENCY = {"busy", "parked", "cadence", "parts"}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", SCRIPT, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


@pytest.fixture(scope="module")
def report_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "bench.json"
    done = run("--quick", "--only", "ring", "--json", str(path))
    assert done.returncode == 0, done.stderr
    assert "messages per second" in done.stdout
    return path


@pytest.fixture
def report(report_file: Path) -> Any:
    return json.loads(report_file.read_text())


def test_every_size_mode_and_access_is_there(report):
    assert report["skipped"] == {}
    seen = {(row["size_bytes"], row["mode"], row["access"]) for row in report["results"]}
    for access in ("in-place", "copy"):
        for mode in ("busy", "stream", "stream-batched"):
            assert {size for size, *rest in seen if rest == [mode, access]} == SIZES
    assert {(64, "parked", "copy"), (64, "cadence", "copy"), (131072, "parts", "in-place")} <= seen


def test_rows_are_complete_and_sane(report):
    for row in report["results"]:
        assert row.keys() >= ROW
        assert row["transport"] == "ring"
        assert row["rounds"] == report["rounds"] == 1
        if row["mode"] in LATENCY:
            assert 0 < row["p50_us"] <= row["p99_us"] <= row["p999_us"] <= row["max_us"]
        else:
            assert row["p50_us"] is None
            assert row["msgs_per_s"] > 0


def test_machine_and_versions_are_told(report):
    assert report["machine"].keys() >= {"cpu", "cores", "kernel", "governor", "python", "architecture"}
    assert report["versions"].keys() >= {"ringserve", "numpy", "pyzmq", "faster-fifo", "iceoryx2"}
    assert report["date"].startswith("20")
    assert 0 <= report["cpu_busy_elsewhere_pct"] <= 100


def test_cpu_use_of_both_sides_is_there(report):
    (use,) = report["cpu"]
    assert use["transport"] == "ring"
    shares = [use[f"{mode}_{side}_pct"] for mode in ("idle", "cadence") for side in ("leader", "follower")]
    assert all(0 <= share <= 105 for share in shares)


def test_broadcast_rings_are_there(report):
    rows = report["broadcast"]
    assert {row["readers"] for row in rows} == {1, 2, 4, 8}
    assert all(0 < row["awake_us"] < row["parked_us"] for row in rows)  # the one makes no system call


def test_tables_can_be_made_again_from_the_file(report_file, report):
    again = run("--from", str(report_file), "--markdown")
    assert again.returncode == 0
    assert again.stdout.strip() == markdown_report(report).strip()
    assert "biased towards" in again.stdout
    widths = [line.count("|") for line in again.stdout.splitlines() if line.startswith("|")]
    transports, readers = widths[:4], widths[4:]  # head, rule, in place, copied
    assert len(readers) == 6  # head, rule, 1, 2, 4, 8 readers
    assert len(set(transports)) == len(set(readers)) == 1


def test_targets_are_judged_by_the_figures(report):
    """Each verdict turns when the figure it is about does."""
    raw = next(row for row in report["results"] if row["mode"] == "parked" and row["pinned"])
    report["results"].append({**raw, "transport": "raw-futex", "size_bytes": 4, "p50_us": 10.0})
    good, bad = copy.deepcopy(report), copy.deepcopy(report)
    for changed, factor in ((good, 1.0), (bad, 100.0)):
        for row in changed["results"]:
            if row["transport"] == "ring":
                row["p50_us"] = {"busy": 0.9, "parked": 11.0, "parts": 2.0}.get(row["mode"], 1.0) * factor
                row["msgs_per_s"] = 3e6 / factor
            if row["mode"] == "parts":
                row |= {"fill_us": 0.5, "touch_us": 0.5, "private_fill_us": 0.4, "private_touch_us": 0.4}
                row["p50_us"] += factor - 1 if row["size_bytes"] > 64 else 0
        changed["cpu"][0] |= {"idle_leader_pct": 0.1 * factor, "idle_follower_pct": 0.1}
    good["peer_death"], bad["peer_death"] = {"max_ms": 45.0}, {"max_ms": 4500.0}
    for changed, awake, parked in ((good, 0.1, 2.0), (bad, 0.2, 4.0)):
        for row in changed["broadcast"]:
            row |= {"awake_us": row["readers"] * awake, "parked_us": 9 + row["readers"] * parked}
    assert [verdict.met for verdict in judge(good)] == [True] * 8
    assert [verdict.met for verdict in judge(bad)] == [False] * 8
    assert terminal_report(bad).count("MISSED") == 8


def test_a_missing_rival_is_a_note(tmp_path, monkeypatch):
    (tmp_path / "zmq.py").write_text("raise ModuleNotFoundError(\"No module named 'zmq'\", name='zmq')\n")
    spec = PairSpec("zeromq", 64, pinned=False, jobs=(Job("busy", count=20),))
    monkeypatch.setattr("scripts.bench.ipc.run.ROOT", f"{tmp_path}{os.pathsep}{ROOT}")
    assert run_pair(spec) == {"skipped": "not installed (No module named 'zmq')"}


def test_an_unknown_transport_is_refused():
    done = run("--only", "carrier-pigeon")
    assert done.returncode == 2
    assert "unknown transport 'carrier-pigeon'; there are ring, " in done.stderr
