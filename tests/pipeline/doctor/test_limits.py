"""Limits of a process."""

from __future__ import annotations

import json
import resource

from pipeline.doctor import Level, limits
from pipeline.doctor.subject import Host
from tests.pipeline.doctor.helpers import EMULATED, doctor, host_of, only, plan_of


def test_few_descriptors():
    done = doctor(
        "--config", str(EMULATED), "--set", "serving_config.server_port=0",
        before=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (700, 700)),
    )  # fmt: skip
    assert done.returncode == 1
    assert "1513 file descriptors are needed, 700 are allowed" in done.stdout
    assert "LimitNOFILE=1513" in done.stdout
    assert "lower pipeline.max_connections to at most 187" in done.stdout
    fits = doctor(
        "--config", str(EMULATED), "--set", "serving_config.server_port=0", "--set", "pipeline.max_connections=187",
        before=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (600, 700)),
    )  # fmt: skip
    assert fits.returncode == 0
    assert "the launcher raises its limit of 600" in fits.stdout


def test_little_address_space():
    done = doctor("--json", before=lambda: resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30)))
    assert any(
        "address space is limited to 2048.0 MiB" in found["text"] for found in json.loads(done.stdout)["findings"]
    )


def test_few_processes(tmp_path):
    host = host_of(
        tmp_path, **{"proc__self__cgroup": "0::/x\n", "sys__fs__cgroup__x__pids.max": "20\n",
                     "sys__fs__cgroup__x__pids.current": "5\n"},
    )  # fmt: skip
    found = only(limits.check_tasks(host, plan_of()))
    assert (found.level, "15 more processes" in found.text) == (Level.WARN, True)
    assert only(limits.check_tasks(Host(tmp_path / "none"), plan_of())).level is Level.OK
