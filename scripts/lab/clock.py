"""CPU time of a process with all its threads, and where it may run."""

from __future__ import annotations

import os
import time


def cpu_seconds(pid: int) -> float:
    """User and system time in nanosecond resolution; /proc/<pid>/stat has ticks of 10 ms.
    The clock's number is the kernel's: ~pid << 3 | CPUCLOCK_SCHED (clock_getcpuclockid(3))."""
    return time.clock_gettime(~pid << 3 | 2)


def pin(place: int) -> None:
    """To the first (leader, 0) or second (follower, 1) CPU this process may use."""
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[place]})


def can_pin() -> bool:
    return len(os.sched_getaffinity(0)) > 1


def machine_busy_seconds() -> float:
    """CPU time spent by everybody since boot, all CPUs: user, nice, system, irq, softirq, steal."""
    with open("/proc/stat", encoding="ascii") as stat:  # noqa: PTH123 - read a thousand times
        ticks = [int(word) for word in stat.readline().split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")
