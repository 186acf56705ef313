"""What control groups allow, of both versions."""

from __future__ import annotations

from pipeline.host.cgroups import cpu_quota, memory_limit, tasks_left


def write(root, path, text):
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def test_limits_of_version_2_with_those_of_ancestors(tmp_path):
    write(tmp_path, "proc/self/cgroup", "0::/system.slice/unit\n")
    group = "sys/fs/cgroup/system.slice"
    write(tmp_path, f"{group}/unit/cpu.max", "max 100000\n")
    write(tmp_path, f"{group}/cpu.max", "250000 100000\n")
    write(tmp_path, f"{group}/unit/memory.max", "1073741824\n")
    write(tmp_path, f"{group}/unit/pids.max", "100\n")
    write(tmp_path, f"{group}/unit/pids.current", "40\n")
    assert (cpu_quota(tmp_path), memory_limit(tmp_path), tasks_left(tmp_path)) == (2.5, 1 << 30, 60)


def test_limits_of_version_1(tmp_path):
    write(tmp_path, "proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/x\n3:pids:/x\n1:name=systemd:/\n0::/\n")
    write(tmp_path, "sys/fs/cgroup/cpu/x/cpu.cfs_quota_us", "-1\n")
    write(tmp_path, "sys/fs/cgroup/cpu/x/cpu.cfs_period_us", "100000\n")
    write(tmp_path, "sys/fs/cgroup/memory/x/memory.limit_in_bytes", "9223372036854771712\n")
    write(tmp_path, "sys/fs/cgroup/memory/memory.limit_in_bytes", "536870912\n")
    write(tmp_path, "sys/fs/cgroup/pids/x/pids.max", "max\n")
    write(tmp_path, "sys/fs/cgroup/pids/x/pids.current", "3\n")
    assert (cpu_quota(tmp_path), memory_limit(tmp_path), tasks_left(tmp_path)) == (None, 512 << 20, None)


def test_no_control_groups(tmp_path):
    assert (cpu_quota(tmp_path), memory_limit(tmp_path), tasks_left(tmp_path)) == (None, None, None)
