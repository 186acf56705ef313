"""How much shared memory is left, and what limits it.

Shared pages count against the memory limit of the control group (where the kernel kills instead of failing) and
against the machine, those in /dev/shm also against its size; and the process that maps them may have a limit of its
own. The smallest of these is what is left.
"""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class MemoryLeft:
    """`free` bytes, the bound that says so, and how to raise it."""

    free: int
    bound_by: str
    remedy: str


_UNKNOWN = MemoryLeft(1 << 63, "no limit is known", "")


def shared_memory_left(directory: Path) -> MemoryLeft:
    """The tightest bound on new shared memory in the tmpfs mounted at `directory`. Without one, nothing is left."""
    return min(_tmpfs(directory), memory_left(), key=_free)


def memory_left() -> MemoryLeft:
    """The tightest bound on new shared memory that is in no file system."""
    return min((*_control_groups(), *_machine(), *_address_space()), key=_free, default=_UNKNOWN)


def _free(left: MemoryLeft) -> int:
    return left.free


def _tmpfs(directory: Path) -> MemoryLeft:
    if not os.access(directory, os.W_OK | os.X_OK):
        return MemoryLeft(0, f"{directory} is not there, or not writable", f"mount a tmpfs at {directory}")
    stat = os.statvfs(directory)
    if stat.f_blocks == 0:
        return MemoryLeft(1 << 63, f"{directory} has no limit", "")
    size = stat.f_blocks * stat.f_frsize >> 20
    return MemoryLeft(
        stat.f_bavail * stat.f_frsize,
        f"{directory} has {size} MiB in all",
        f"enlarge it with `mount -o remount,size=…m {directory}`, or start the container with `--shm-size=…m`",
    )


def _control_groups() -> list[MemoryLeft]:
    """Memory limits of this process's control group and its ancestors (version 2, then version 1)."""
    found = []
    for line in _lines(Path("/proc/self/cgroup")):
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            found += _limits(_CGROUP, path, "memory.max", "memory.current", "")
        elif "memory" in controllers.split(","):
            found += _limits(_CGROUP / "memory", path, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
    return found


def _limits(root: Path, path: str, limit_file: str, usage_file: str, prefix: str) -> list[MemoryLeft]:
    found = []
    group = root / path.strip("/")
    for directory in (group, *group.parents):
        if not directory.is_relative_to(root):
            break
        limit, usage = _number(directory / limit_file), _number(directory / usage_file)
        if limit is not None and usage is not None:
            found.append(
                MemoryLeft(
                    max(limit - usage + _reclaimable(directory, prefix), 0),
                    f"the control group's memory limit is {limit >> 20} MiB",
                    "raise it (`--memory=…` of the container, `MemoryMax=` of the systemd unit)",
                )
            )
    return found


def _reclaimable(group: Path, prefix: str) -> int:
    """Page cache, which counts as used but goes when memory is needed: weights that were just read, for example."""
    names = (f"{prefix}inactive_file", f"{prefix}active_file")
    rows = (line.split() for line in _lines(group / "memory.stat"))
    return sum(int(row[1]) for row in rows if len(row) == 2 and row[0] in names)


def _machine() -> list[MemoryLeft]:
    for line in _lines(Path("/proc/meminfo")):
        if line.startswith("MemAvailable:"):
            free = int(line.split()[1]) << 10
            return [MemoryLeft(free, "the machine's available memory", "stop something else, or use smaller rings")]
    return []


def _address_space() -> list[MemoryLeft]:
    """RLIMIT_AS, less what this process has mapped."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    mapped = _lines(Path("/proc/self/statm"))
    if limit == resource.RLIM_INFINITY or not mapped:
        return []
    free = limit - int(mapped[0].split()[0]) * resource.getpagesize()
    bound = f"this process's address space is limited to {limit >> 20} MiB"
    return [MemoryLeft(max(free, 0), bound, "raise it (`ulimit -v unlimited`, `LimitAS=` of the systemd unit)")]


def _number(path: Path) -> int | None:
    lines = _lines(path)
    return int(lines[0]) if lines and lines[0].isdigit() else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
