"""What chaos.py and soak.py have in common: a server, something that is done to it, and what is left of it."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Protocol, TypeVar

from scripts.verify.survival.load import Tally
from scripts.verify.survival.server import Server, ServerError, log_file, started, traces

Say = Callable[[str], None]


class Report(Protocol):
    """Of a session. `wrong` is beside what the tally has."""

    tally: Tally
    wrong: list[str]


class Plan(Protocol):
    """Which server it is."""

    @property
    def config(self) -> Path: ...
    @property
    def overrides(self) -> tuple[str, ...]: ...


AnyReport = TypeVar("AnyReport", bound=Report)


def hold(plan: Plan, work: Callable[[Server], Coroutine[Any, Any, AnyReport]], say: Say) -> AnyReport:
    """Start the server, work, stop it, and look for what it leaves. Raises ServerError, ValueError when there is
    nothing to begin with."""
    with log_file() as log:
        with started(plan.config, plan.overrides, log) as server:
            report = asyncio.run(work(server))
            stages = server.stages()
            status = server.stop()
        if status != 0:
            report.wrong.append(f"the server ended with status {status}")
        report.wrong += [f"left behind: {trace}" for trace in traces(server.pid, stages)]
        if _is_wrong(report):
            say("\n".join(line for line in server.said().splitlines() if " INFO " not in line))
    return report


def conclude(name: str, run: Callable[[Say], AnyReport], tell: Callable[[AnyReport], None]) -> int:
    """The program of this name: run, tell, exit status."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the server is to be stopped with us
    try:
        report = run(lambda text: print(text, flush=True))
    except (ServerError, ValueError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    tell(report)
    return 1 if _is_wrong(report) else 0


def _is_wrong(report: Report) -> bool:
    return bool(report.wrong or report.tally.wrong)
