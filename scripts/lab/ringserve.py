"""RingServe as a user starts it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from scripts.lab.processes import Running, started

_START_TIMEOUT_S = 600.0  # a large model is compiled first


def ringserve(file: Path, overrides: Sequence[str], log: Path) -> AbstractContextManager[Running]:
    """With the configuration `file`, and KEY=VALUE for some of its keys. Raises BenchError."""
    sets = [word for override in overrides for word in ("--set", override)]
    command = [sys.executable, "-m", "pipeline.launch", "--config", str(file), *sets]
    return started(command, log, _listening, timeout_s=_START_TIMEOUT_S)


def _listening(said: str) -> str | None:
    """The launcher's last line comes when everything is there."""
    if "try: curl" not in said:
        return None
    return next(line.split()[-1] for line in said.splitlines() if "listening on" in line)
