"""Control groups of this process: what a container or a systemd unit allows, in version 1 and version 2."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_TREE = "sys/fs/cgroup"


def group_directories(controller: str, root: Path = Path("/")) -> Iterator[Path]:
    """The directories that may hold limits of this controller: the process's own group first, then its ancestors.

    Files have version 2's names in version 2's tree (``memory.max``), and version 1's in version 1's.
    """
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        base = root / _TREE / (controller if controllers else "")
        group = base / path.strip("/")
        yield from (directory for directory in (group, *group.parents) if directory.is_relative_to(base))


def cpu_quota(root: Path = Path("/")) -> float | None:
    """CPU quota of the tightest group, in CPUs; None: no limit."""
    quotas = [quota for directory in group_directories("cpu", root) for quota in _quotas(directory)]
    return min(quotas, default=None)


def _quotas(directory: Path) -> Iterator[float]:
    quota, _, period = " ".join(_lines(directory / "cpu.max")).partition(" ")
    if not quota:
        quota, period = (" ".join(_lines(directory / f"cpu.cfs_{name}_us")) for name in ("quota", "period"))
    if quota.isdigit() and period.isdigit() and int(period):
        yield int(quota) / int(period)


def tasks_left(root: Path = Path("/")) -> int | None:
    """Processes and threads that may still be started; None: no limit."""
    left = []
    for directory in group_directories("pids", root):
        most, now = (" ".join(_lines(directory / f"pids.{name}")) for name in ("max", "current"))
        if most.isdigit() and now.isdigit():
            left.append(int(most) - int(now))
    return min(left, default=None)


def memory_limit(root: Path = Path("/")) -> int | None:
    """Bytes; None: no limit."""
    names = ("memory.max", "memory.limit_in_bytes")
    texts = [" ".join(_lines(d / name)) for d in group_directories("memory", root) for name in names]
    limits = [int(text) for text in texts if text.isdigit()]
    return min((limit for limit in limits if limit < _UNLIMITED), default=None)


_UNLIMITED = 1 << 60  # version 1 says "no limit" with a number near 2^63


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
