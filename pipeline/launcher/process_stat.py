"""State and CPU time of a process, from /proc."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_STATE, _USER, _SYSTEM = 0, 11, 12  # places behind the command's name in /proc/<pid>/stat; see proc(5)


@dataclass(frozen=True, slots=True)
class ProcessStat:
    stopped: bool  # by SIGSTOP or a terminal
    cpu_ticks: int


def process_stat(pid: int) -> ProcessStat | None:
    """None for a process that is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    fields = text.rsplit(")", 1)[1].split()
    return ProcessStat(fields[_STATE] == "T", int(fields[_USER]) + int(fields[_SYSTEM]))
