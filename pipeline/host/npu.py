"""The CPUs next to an Ascend device, from npu-smi and sysfs.

Not run on a device so far. The parsers expect the format that Huawei's documents and users' reports show; they are
tested on CPU, with texts of that format.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pipeline.host.facts import HostError

NPU_SMI = ("npu-smi", "info")
_TIMEOUT_S = 30
_CARD = re.compile(r"\| (\d+)\s+\S+\s+\| (\w+)\s+\|")  # | 0     910B3               | OK            | …
_CHIP = re.compile(r"\| (\d+)(?:\s+(\d+))?\s+\| ([0-9A-Fa-f:.]+)\s+\|")  # | 0     [Phy-ID]   | 0000:C1:00.0  | …

_PROCESS = re.compile(r"\| (\d+)\s+(\d+)\s+\| (\d+)\s+\| (\S+)\s+\|")  # | 0       0    | 632268   | python | …


def device_cpus(device: int, root: Path = Path("/"), table: str | None = None) -> tuple[int, ...]:
    """CPUs of the NUMA node that the device is attached to, those that this process may not use included.

    `device` counts as MindSpore does: among ``ASCEND_RT_VISIBLE_DEVICES`` where that is set. `table` replaces the
    output of npu-smi. Raises HostError where the CPUs can't be determined.
    """
    bus = bus_of(physical_device(device), npu_table() if table is None else table)
    path = root / "sys/bus/pci/devices" / bus / "local_cpulist"
    try:
        cpus = parse_cpu_list(path.read_text())
    except (OSError, ValueError) as error:
        raise HostError(f"{path} does not say which CPUs are near device {device}: {error}") from error
    if not cpus:
        raise HostError(f"{path} is empty: the kernel does not know which CPUs are near device {device}")
    return cpus


def physical_device(device: int) -> int:
    """Raises HostError where ``ASCEND_RT_VISIBLE_DEVICES`` has no such device."""
    visible = os.environ.get("ASCEND_RT_VISIBLE_DEVICES", "")
    if not visible:
        return device
    numbers = visible.split(",")
    if device >= len(numbers) or not numbers[device].strip().isdigit():
        raise HostError(f"ASCEND_RT_VISIBLE_DEVICES is {visible!r}: there is no device {device} in it")
    return int(numbers[device])


def npu_table() -> str:
    """What ``npu-smi info`` prints. Raises HostError."""
    try:
        done = subprocess.run(NPU_SMI, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HostError(f"npu-smi info can't be run: {error}") from error
    if done.returncode:
        raise HostError(f"npu-smi info exited with status {done.returncode}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


class _Chip(NamedTuple):
    device: int
    card: int
    number: int  # on its card
    health: str
    bus: str


def _chips(table: str) -> Iterator[_Chip]:
    """Each has two lines; where cards have two chips, the second line has the device's number (Phy-ID), else the
    first line does."""
    card, health = -1, ""
    for line in table.splitlines():
        chip = _CHIP.match(line)
        if chip and card >= 0 and ":" in chip[3]:
            yield _Chip(int(chip[2] or card), card, int(chip[1]), health, chip[3].lower())
            card = -1
        elif head := _CARD.match(line):
            card, health = int(head[1]), head[2]


def devices_in(table: str) -> dict[int, tuple[str, str]]:
    """Health and PCI address by device."""
    return {chip.device: (chip.health, chip.bus) for chip in _chips(table)}


def processes_in(table: str) -> list[tuple[int, int, str]]:
    """Device, process id and name of all that run on devices."""
    devices = {(chip.card, chip.number): chip.device for chip in _chips(table)}
    found = filter(None, map(_PROCESS.match, table.splitlines()))
    return [(devices.get((int(at[1]), int(at[2])), int(at[1])), int(at[3]), at[4]) for at in found]


def bus_of(device: int, table: str) -> str:
    """PCI address of a device. Raises HostError."""
    devices = devices_in(table)
    if device not in devices:
        known = ", ".join(map(str, devices)) or "none"
        raise HostError(f"npu-smi info shows no device {device}; it shows {known}")
    return devices[device][1]


def parse_cpu_list(text: str) -> tuple[int, ...]:
    """CPU numbers in the kernel's list format, such as ``0-23,96-119``. Raises ValueError."""
    cpus: list[int] = []
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        cpus += range(int(first), int(last or first) + 1)
    return tuple(cpus)
