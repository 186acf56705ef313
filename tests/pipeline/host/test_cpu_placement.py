"""Where stages run, and how long they stay awake there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.config import ConfigurationError, load_configuration
from pipeline.host.cgroups import cpu_quota, memory_limit, tasks_left
from pipeline.host.cpu_placement import fit_to_host, spin_us, usable_cpus
from pipeline.host.facts import HostError
from pipeline.host.npu import bus_of, device_cpus, devices_in, parse_cpu_list, physical_device
from tests.server.launched import Launched

ROOT = Path(__file__).parents[3]
AWAKE, ASLEEP = 100.0, 0.0


def configured(*overrides, name="emulated_910b"):
    return load_configuration(ROOT / f"configs/{name}.yaml", overrides, other_host=True)


# ---- staying awake -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cpus", "inference", "others"),
    [(0.5, ASLEEP, ASLEEP), (1, ASLEEP, ASLEEP), (1.9, ASLEEP, ASLEEP), (2, AWAKE, ASLEEP), (3, AWAKE, ASLEEP),
     (3.9, AWAKE, ASLEEP), (4, AWAKE, AWAKE), (192, AWAKE, AWAKE)],
)  # fmt: skip
def test_with_a_device_of_its_own_a_stage_needs_a_cpu_of_its_own(cpus, inference, others):
    for config in (configured(), configured("pipeline.runner.device=Ascend", name="demo")):
        assert spin_us("inference", config, cpus) == inference
        assert {spin_us(stage, config, cpus) for stage in ("preprocess", "sampling")} == {others}


@pytest.mark.parametrize(("threads", "others"), [("null", ASLEEP), ("64", ASLEEP), ("62", ASLEEP), ("61", AWAKE)])
def test_a_model_on_the_cpus_keeps_all_that_it_computes_on(threads, others):
    config = configured(f"pipeline.runner.threads={threads}", name="demo")
    assert {spin_us(stage, config, 64) for stage in ("preprocess", "sampling")} == {others}
    assert spin_us("inference", config, 64) == AWAKE


def test_what_is_configured_is_what_happens():
    config = configured("pipeline.spin_us.sampling=7", "pipeline.spin_us.inference=0")
    assert spin_us("sampling", config, 1) == 7
    assert spin_us("inference", config, 64) == 0


def test_a_stage_apart_from_the_model_takes_nothing_from_it():
    apart = configured("pipeline.cpus.inference=[0]", "pipeline.cpus.sampling=[1]", "pipeline.cpus.preprocess=[0,1]")
    assert spin_us("sampling", apart, 2) == AWAKE
    assert spin_us("preprocess", apart, 2) == ASLEEP


# ---- on this host ------------------------------------------------------------------------------------------------


def test_everything_is_decided_before_the_stages_start():
    cpu = min(os.sched_getaffinity(0))
    config = fit_to_host(configured(f"pipeline.cpus.sampling={cpu}"))
    assert config.pipeline.cpus.sampling == (cpu,)
    assert config.pipeline.cpus.inference is None
    spins = config.pipeline.spin_us
    assert spins.inference == spin_us("inference", config, usable_cpus())
    assert None not in (spins.preprocess, spins.inference, spins.sampling)


def test_affinity_counts():
    script = "from pipeline.host.cpu_placement import *; os.sched_setaffinity(0, {%d}); print(usable_cpus())"
    cpu = min(os.sched_getaffinity(0))
    done = subprocess.run([sys.executable, "-c", script % cpu], cwd=ROOT, capture_output=True, text=True, check=True)
    assert float(done.stdout) <= 1


def test_stages_run_where_they_are_told_to(tmp_path):
    """And only inference may push others off its CPU."""
    cpus = sorted(os.sched_getaffinity(0))
    first, last = cpus[0], cpus[-1]
    server = Launched(
        tmp_path, (f"pipeline.cpus.inference={first}", f"pipeline.cpus.sampling=[{first}, {last}]",
                   f"pipeline.cpus.front={last}"),
    )  # fmt: skip
    try:
        stages = server.stages()
        assert server.generate("where", 5).json()["generated_text"] == server.text("where", 5)
        allowed = {stage: os.sched_getaffinity(pid) for stage, pid in stages.items()}
        assert allowed == {
            "front": {last}, "preprocess": set(cpus), "inference": {first}, "sampling": {first, last},
        }  # fmt: skip
        policies = {stage: os.sched_getscheduler(pid) for stage, pid in stages.items()}
        assert policies == dict.fromkeys(stages, os.SCHED_BATCH) | {"inference": os.SCHED_OTHER}
        threads = {int(task.name) for task in Path(f"/proc/{stages['inference']}/task").iterdir()}
        assert all(os.sched_getaffinity(thread) == {first} for thread in threads)
    finally:
        server.stop()


def test_cpus_that_are_not_there_are_refused():
    with pytest.raises(ConfigurationError, match=r"pipeline\.cpus\.sampling names CPUs .*\[4095\]"):
        load_configuration(ROOT / "configs/emulated_910b.yaml", ["pipeline.cpus.sampling=[0, 4095]"])
    with pytest.raises(ConfigurationError, match="or device"):
        configured("pipeline.cpus.sampling=npu")


# ---- near the device ---------------------------------------------------------------------------------------------

ONE_CHIP = """\
+------------------------------------------------------------------------------------------------+
| npu-smi 24.1.rc2                 Version: 24.1.rc2                                             |
+---------------------------+---------------+----------------------------------------------------+
| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
| Chip                      | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |
+===========================+===============+====================================================+
| 0     910B4               | OK            | 85.8        40                0    / 0             |
| 0                         | 0000:C1:00.0  | 0           0    / 0          3342 / 32768         |
+===========================+===============+====================================================+
| 3     910B4               | Warning       | 86.0        41                0    / 0             |
| 0                         | 0000:01:00.0  | 0           0    / 0          59784/ 32768         |
+===========================+===============+====================================================+
+---------------------------+---------------+----------------------------------------------------+
| NPU     Chip              | Process id    | Process name             | Process memory(MB)      |
+===========================+===============+====================================================+
| 0       0                 | 6277          | python                   | 56485                   |
+===========================+===============+====================================================+
"""
TWO_CHIPS = """\
| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
| Chip  Phy-ID              | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |
+===========================+===============+====================================================+
| 4     Ascend910           | OK            | 170.7       49                0    / 0             |
| 0     8                   | 0000:8D:00.0  | 0           0    / 0          51255/ 65536         |
+------------------------------------------------------------------------------------------------+
| 4     Ascend910           | OK            | -           51                0    / 0             |
| 1     9                   | 0000:8F:00.0  | 0           0    / 0          45292/ 65536         |
"""


def sysfs(root, **lists):
    """``local_cpulist`` of PCI addresses; a keyword's underscores stand for colons."""
    for bus, cpus in lists.items():
        directory = root / "sys/bus/pci/devices" / bus.strip("p").replace("_", ":")
        directory.mkdir(parents=True)
        (directory / "local_cpulist").write_text(cpus)
    return root


def test_tables_of_npu_smi():
    assert devices_in(ONE_CHIP) == {0: ("OK", "0000:c1:00.0"), 3: ("Warning", "0000:01:00.0")}
    assert devices_in(TWO_CHIPS) == {8: ("OK", "0000:8d:00.0"), 9: ("OK", "0000:8f:00.0")}
    assert devices_in("dcmi module initialize failed. ret is -8005\n") == {}
    with pytest.raises(HostError, match="no device 1; it shows 0, 3"):
        bus_of(1, ONE_CHIP)


def test_cpus_next_to_a_device(tmp_path, monkeypatch):
    monkeypatch.delenv("ASCEND_RT_VISIBLE_DEVICES", raising=False)
    root = sysfs(tmp_path, **{"0000_c1_00.0": "144-167\n", "0000_01_00.0": "0-2,24\n"})
    assert device_cpus(0, root, ONE_CHIP) == tuple(range(144, 168))
    assert device_cpus(3, root, ONE_CHIP) == (0, 1, 2, 24)
    with pytest.raises(HostError, match="local_cpulist does not tell"):
        device_cpus(8, root, TWO_CHIPS)
    monkeypatch.setenv("ASCEND_RT_VISIBLE_DEVICES", "3,0")
    assert device_cpus(0, root, ONE_CHIP) == (0, 1, 2, 24)
    assert (physical_device(0), physical_device(1)) == (3, 0)
    with pytest.raises(HostError, match="there is no device 2"):
        physical_device(2)


def test_cpu_lists_of_the_kernel():
    assert parse_cpu_list("0-3,8,10-11\n") == (0, 1, 2, 3, 8, 10, 11)
    assert parse_cpu_list("\n") == ()
    with pytest.raises(ValueError, match="invalid literal"):
        parse_cpu_list("0-x")


def test_inference_is_pinned_next_to_its_device(tmp_path, monkeypatch):
    """All but the lookup: npu-smi is a program of ours, and the CPUs are this machine's."""
    cpu = min(os.sched_getaffinity(0))
    monkeypatch.delenv("ASCEND_RT_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("pipeline.host.cpu_placement.device_cpus", lambda device: (cpu, 4000 + device))
    overrides = (
        "pipeline.runner.device=Ascend",
        "pipeline.cpus.inference=device",
        "serving_config.start_device_id=3",
    )
    config = configured(*overrides, name="demo")
    assert config.pipeline.cpus.inference == "device"
    assert fit_to_host(config).pipeline.cpus.inference == (cpu,)
    monkeypatch.setattr("pipeline.host.cpu_placement.device_cpus", lambda _: (4000,))
    with pytest.raises(HostError, match=r"pipeline\.cpus\.inference is device, but this process may use none"):
        fit_to_host(config)


def test_where_the_device_is_not_known_the_start_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    config = configured("pipeline.runner.device=Ascend", "pipeline.cpus.inference=device", name="demo")
    with pytest.raises(HostError, match=r"pipeline\.cpus\.inference is device, but npu-smi can't be asked"):
        fit_to_host(config)


@pytest.mark.parametrize("name", ["demo", "emulated_910b"])
def test_without_a_device_there_is_nothing_to_be_near(name):
    with pytest.raises(
        ConfigurationError, match=r"pipeline\.cpus\.sampling is device, but no Ascend device computes"
    ):
        configured("pipeline.cpus.sampling=device", name=name)


# ---- control groups ----------------------------------------------------------------------------------------------


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
