"""Microbenchmarks of `ipc` beside its rivals: python -m scripts.bench.ipc [--json FILE] [--plot FILE.png] …

Prints a table. Two fresh processes per measurement; rounds alternate between the transports, so that noise meets all
alike; figures are medians over the rounds. Rivals that are not installed are skipped with a note.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from pathlib import Path
from typing import Any

from scripts.bench.ipc.plan import Effort
from scripts.bench.ipc.report import markdown_report, terminal_report
from scripts.bench.ipc.run import Bench
from scripts.bench.ipc.targets import judge
from scripts.bench.ipc.transports import NAMES
from scripts.lab.machine import describe_machine, describe_versions


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(":", 1)[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write machine, versions and every figure")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw latencies (needs matplotlib)")
    parser.add_argument("--markdown", action="store_true", help="print the short table in Markdown instead")
    parser.add_argument("--quick", action="store_true", help="few messages, one round, 3 s of idling")
    parser.add_argument("--rounds", type=int, metavar="N", help="default: 5, with --quick 1")
    parser.add_argument("--only", type=_names, default=NAMES, metavar="TRANSPORT,…", help=f"of {', '.join(NAMES)}")
    parser.add_argument(
        "--from", dest="source", type=Path, metavar="FILE", help="show an earlier --json, measure nothing"
    )
    options = parser.parse_args(arguments)
    if options.rounds is not None and options.rounds < 1:
        parser.error(f"--rounds: at least 1 expected, not {options.rounds}")
    return options


def _names(text: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in text.split(","))
    for name in names:
        if name not in NAMES:
            raise argparse.ArgumentTypeError(f"no transport {name!r}; there are {', '.join(NAMES)}")
    return names


def measure(options: argparse.Namespace) -> dict[str, Any]:
    effort = Effort.quick(options.rounds or 1) if options.quick else Effort.full(options.rounds or 5)
    bench = Bench(options.only, effort, lambda text: print(text, file=sys.stderr, flush=True))
    report: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": describe_machine(),
        "quick": options.quick,
    }
    report |= bench.run()
    report["versions"] = describe_versions(report["skipped"])
    report["targets"] = [verdict.as_row() for verdict in judge(report)]
    return report


def main() -> int:
    options = parse_arguments()
    report = json.loads(options.source.read_text()) if options.source else measure(options)
    print(markdown_report(report) if options.markdown else terminal_report(report))
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    if options.plot:
        try:
            from scripts.bench.ipc.plot import plot

            plot(report, options.plot)
        except ImportError as error:
            print(f"no plot: {error} (pip install matplotlib)", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
