"""CPUs and their time."""

from __future__ import annotations

import os

import pytest

from pipeline.doctor import Level, cpus
from pipeline.doctor.subject import Host
from tests.pipeline.doctor.helpers import host_of, only, plan_of


def test_governors(tmp_path):
    host = host_of(
        tmp_path,
        sys__devices__system__cpu__cpu0__cpufreq__scaling_governor="performance\n",
        sys__devices__system__cpu__cpu1__cpufreq__scaling_governor="powersave\n",
    )
    found = only(cpus.check_governor(host))
    assert found.level is Level.WARN
    assert "powersave on 1" in found.text
    assert "cpupower" in found.fix
    assert only(cpus.check_governor(Host(tmp_path / "none"))).level is Level.OK


def test_numa_nodes(tmp_path):
    two = host_of(
        tmp_path,
        sys__devices__system__node__online="0-1\n",
        sys__devices__system__node__node0__cpulist="0-1\n",
    )
    found = only(cpus.check_nodes(two, plan_of()))
    assert (found.level, found.fix) == (Level.WARN, "pipeline.cpus.inference: [0, 1]")
    cpu = min(os.sched_getaffinity(0))
    assert only(cpus.check_nodes(two, plan_of(f"pipeline.cpus.inference={cpu}"))).level is Level.OK
    assert only(cpus.check_nodes(Host(tmp_path / "none"), plan_of())).level is Level.OK


def test_stages_pinned_on_top_of_each_other():
    cpu = min(os.sched_getaffinity(0))
    both = plan_of(f"pipeline.cpus.inference={cpu}", f"pipeline.cpus.sampling={cpu}")
    assert only(cpus.check_pinning(Host(), both)).level is Level.WARN
    one = plan_of(f"pipeline.cpus.inference={cpu}")
    assert only(cpus.check_pinning(Host(), one)).text == f"pinned: inference to {cpu}"
    assert not list(cpus.check_pinning(Host(), plan_of()))


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"proc__self__cgroup": "0::/a/b\n", "sys__fs__cgroup__a__cpu.max": "150000 100000\n"}, "1.5"),
        ({"proc__self__cgroup": "2:cpu,cpuacct:/a\n", "sys__fs__cgroup__cpu__a__cpu.cfs_quota_us": "50000\n",
          "sys__fs__cgroup__cpu__a__cpu.cfs_period_us": "100000\n"}, "0.5"),
    ],
    ids=["v2", "v1"],
)  # fmt: skip
def test_less_than_two_cpus_of_time(tmp_path, files, quota):
    host = host_of(tmp_path, **files)
    assert f"a quota of {quota}" in only(cpus.check_count(host)).text
    assert "--cpuset-cpus" in only(cpus.check_quota(host)).fix
    assert not list(cpus.check_quota(Host(tmp_path / "none")))
