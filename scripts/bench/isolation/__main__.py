"""Whether one client can hurt another: what hostile requests do to a stream, to `/health` and to new clients.

    python -m scripts.bench.isolation                             every kind, emulated device and demo model
    python -m scripts.bench.isolation --config configs/demo.yaml  on one of them
    python -m scripts.bench.isolation --kinds tokenize-words,idle --rounds 2
    python -m scripts.bench.isolation --quick                     one round of a second; not for quoting

A bystander streams a long completion, asks `/health` 20 times a second and comes four times a second as a new client,
while an attacker sends one kind of request again and again, at the documented limits (docs/isolation.md). A figure is
the longest of a turn, less the same while the attacker sends the same bytes at the same times to a sink: what it
costs the shared CPUs to send them is no fault of the server's. Medians over rounds, with the least and the greatest.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from pipeline.config import ConfigurationError
from scripts.bench.isolation.figures import FIGURES, GOAL_MS, Row, table
from scripts.bench.isolation.kinds import KINDS, Kind, choose
from scripts.bench.isolation.measure import Target, measure, workers
from scripts.bench.isolation.stands import DEMO, EMULATED, Stand, stands_of
from scripts.lab.arguments import count, parser, positive, write_json
from scripts.lab.clock import machine_busy_seconds
from scripts.lab.machine import describe_machine
from scripts.lab.processes import exit_when_told

ROUNDS, SECONDS = 5, 2.0


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    options = parser(__doc__)
    add = options.add_argument
    add("--kinds", type=choose, default=KINDS, metavar="NAMES", help=f"some of {', '.join(k.name for k in KINDS)}")
    add("--config", type=Path, action="append", metavar="FILE",
        help=f"the server's; may be repeated; default: {EMULATED.name} and {DEMO.name}")  # fmt: skip
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key")
    add("--rounds", type=count, help=f"default {ROUNDS}")
    add("--seconds", type=positive, help=f"of an attack; default {SECONDS:g}")
    add("--json", type=Path, metavar="FILE", help="also write the results there")
    add("--quick", action="store_true", help="one round of a second")
    given = options.parse_args(arguments)
    given.rounds = given.rounds or (1 if given.quick else ROUNDS)
    given.seconds = given.seconds or (1.0 if given.quick else SECONDS)
    return given


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, 1 when a server could not be measured, 2 for wrong usage. A goal that is missed is reported."""
    given = parse(arguments)
    exit_when_told()
    began, busy = time.monotonic(), machine_busy_seconds()
    try:
        stands = [stand for file in given.config or (EMULATED, DEMO)
                  for stand in stands_of(file, tuple(given.set)).values()]  # fmt: skip
    except ConfigurationError as error:
        print(f"bench_isolation: {error}", file=sys.stderr)
        return 2
    rows = run(stands, given.kinds, given.rounds, given.seconds)
    wall = time.monotonic() - began
    machine = describe_machine() | {"load_average": os.getloadavg()}
    machine["busy_percent"] = round(100 * (machine_busy_seconds() - busy) / wall, 1)  # of one CPU, by all processes
    print(_heading(machine, given.rounds, given.seconds), table(rows), _verdict(rows), sep="\n\n")
    report = {"machine": machine, "rounds": given.rounds, "attack_s": given.seconds, "quick": given.quick,
              "goal_ms": GOAL_MS, "rows": [row.as_json() for row in rows]}  # fmt: skip
    write_json(given.json, report)
    return 1 if any(row.broken for row in rows) else 0


def run(stands: Sequence[Stand], kinds: Sequence[Kind], rounds: int, seconds: float) -> list[Row]:
    """Server after server, each with the kinds that are for it."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="ringserve-isolation-") as directory, workers() as work:
        for stand in stands:
            own = [kind for kind in kinds if kind.stand == stand.name]
            with ExitStack() as stack:
                rows += measure(own, Target(stand, Path(directory), stack), work, rounds, seconds)
    return rows


def _heading(machine: dict[str, object], rounds: int, seconds: float) -> str:
    return (
        f"{machine['cpu']}, {machine['usable_cores']} usable cores, Python {machine['python']}; "
        f"{rounds} rounds of {seconds:g} s; the longest of each turn less that beside the sink, in ms: "
        f"median (least … greatest)"
    )


def _verdict(rows: Sequence[Row]) -> str:
    judged = [row for row in rows if row.emulated]
    missed = [row for row in judged if row.missed]
    worst = {name: max((row.spread(name).median for row in judged if row.rounds), default=0.0) for name in FIGURES}
    figures = ", ".join(
        f"{name.removesuffix('_ms').replace('_', ' ')} {value:.0f} ms" for name, value in worst.items()
    )
    return (
        f"Goal on the emulated device: at most {GOAL_MS:g} ms beyond the sink, no failure, no restart: "
        f"{len(judged) - len(missed)} of {len(judged)} kinds meet it; the worst: {figures}"
    )


if __name__ == "__main__":
    sys.exit(main())
