"""What chaos.py and soak.py have in common: a server, something that is done to it, and what is left of it."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from scripts.lab.arguments import count, parser
from scripts.lab.errors import BenchError
from scripts.lab.paths import ROOT
from scripts.lab.processes import exit_when_told
from scripts.lab.server import Server, launched
from scripts.verify.survival.load import Tally
from scripts.verify.survival.quiet import traces

EMULATED = ROOT / "configs" / "emulated_910b.yaml"


@dataclass(frozen=True, slots=True)
class Plan:
    """Which server it is, and how much is asked of it."""

    config: Path
    overrides: tuple[str, ...] = ()
    tokens: int = 300  # of the longest stream
    seed: int = 0


@dataclass(slots=True)
class Report:
    """Of a session. `wrong` is beside what the tally has."""

    tally: Tally = field(default_factory=Tally)
    wrong: list[str] = field(default_factory=list)

    @property
    def every_wrong(self) -> list[str]:
        return [*self.tally.wrong, *self.wrong]


AnyReport = TypeVar("AnyReport", bound=Report)


def parser_of(doc: str | None, *, tokens: int) -> argparse.ArgumentParser:
    """With the options that all have."""
    made = parser(doc)
    made.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key")
    made.add_argument("--tokens", type=count, default=tokens, help="of the longest stream")
    made.add_argument("--seed", type=int, default=0, help="of what is done when")
    return made


def hold(plan: Plan, work: Callable[[Server], Coroutine[Any, Any, AnyReport]]) -> AnyReport:
    """Start the server, work, stop it, and look for what it leaves. Raises ServerError, ValueError when there is
    nothing to begin with."""
    with tempfile.TemporaryDirectory(prefix="ringserve-survival-") as directory:
        with launched(plan.config, plan.overrides, Path(directory) / "server.log") as server:
            report = asyncio.run(work(server))
            processes = server.processes()
            status = server.stop()
        if status != 0:
            report.wrong.append(f"the server ended with status {status}")
        report.wrong += [f"left behind: {trace}" for trace in traces(server.pid, processes)]
        if report.every_wrong:
            print("\n".join(line for line in server.log_text().splitlines() if " INFO " not in line), flush=True)
    return report


def conclude(name: str, run: Callable[[], AnyReport], show: Callable[[AnyReport], None]) -> int:
    """The program of this name: run, show, exit status."""
    exit_when_told()  # the server is to be stopped with us
    try:
        report = run()
    except (BenchError, ValueError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    show(report)
    for wrong in report.every_wrong:
        print(f"WRONG: {wrong}")
    return 1 if report.every_wrong else 0
