"""Which CPUs are next to an Ascend device: tables of npu-smi, and sysfs."""

from __future__ import annotations

import pytest

from pipeline.host.facts import HostError
from pipeline.host.npu import bus_of, device_cpus, devices_in, parse_cpu_list, physical_device, processes_in

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
    with pytest.raises(HostError, match="local_cpulist does not say"):
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


def test_processes_and_their_devices():
    assert processes_in(ONE_CHIP) == [(0, 6277, "python")]
    mine = "| 4       1                 | 632268        | python3.1 | 197     | NA |"
    idle = "| No running processes found in NPU 5 |"
    assert processes_in("\n".join([TWO_CHIPS, idle, mine])) == [(9, 632268, "python3.1")]
    assert processes_in(TWO_CHIPS) == []
