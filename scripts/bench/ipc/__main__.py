"""Microbenchmarks of `ipc` beside its rivals.

    python -m scripts.bench.ipc --json bench-ipc.json --plot bench-ipc.png      ten minutes
    python -m scripts.bench.ipc --only ring,pipe --rounds 1
    python -m scripts.bench.ipc --from bench-ipc.json --markdown                as the README has them

Two fresh processes per measurement; rounds alternate between the transports, so that noise meets all alike; figures
are medians over the rounds. Rivals that are not installed are skipped with a note.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from scripts.bench.ipc.plan import QUICK, Effort
from scripts.bench.ipc.report import markdown_report, plot, terminal_report
from scripts.bench.ipc.run import run
from scripts.bench.ipc.targets import as_row, judge
from scripts.bench.ipc.transports import NAMES
from scripts.lab.arguments import count, parser, say, words, write_json
from scripts.lab.errors import BenchError
from scripts.lab.machine import describe_machine, describe_versions


def parse() -> argparse.Namespace:
    line = parser(__doc__)
    line.add_argument("--json", type=Path, metavar="FILE", help="write machine, versions and every figure")
    line.add_argument("--plot", type=Path, metavar="FILE.png", help="draw latencies (needs matplotlib)")
    line.add_argument("--markdown", action="store_true", help="print the short table in Markdown instead")
    line.add_argument("--quick", action="store_true", help="few messages, one round, 3 s of idling")
    line.add_argument("--rounds", type=count, metavar="N", help="default: 5, with --quick 1")
    names = words("transport", NAMES)
    line.add_argument("--only", type=names, default=NAMES, metavar="TRANSPORT,…", help=f"of {', '.join(NAMES)}")
    line.add_argument("--from", dest="source", type=Path, metavar="FILE", help="show an earlier --json")
    return line.parse_args()


def measure(options: argparse.Namespace) -> dict[str, Any]:
    effort = QUICK if options.quick else Effort()
    if options.rounds:
        effort = replace(effort, rounds=options.rounds)
    report: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": describe_machine(),
        "quick": options.quick,
    }
    report |= run(options.only, effort, say)
    report["versions"] = describe_versions(report["skipped"])
    report["targets"] = [as_row(goal) for goal in judge(report)]
    return report


def main() -> int:
    options = parse()
    report = json.loads(options.source.read_text()) if options.source else measure(options)
    print(markdown_report(report) if options.markdown else terminal_report(report))
    write_json(options.json, report)
    try:
        if options.plot:
            plot(report, options.plot)
    except BenchError as error:
        print(f"bench_ipc: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
