"""From 16 nodes to 1,000: where a router's CPU ends, how hits and first tokens scale, what is lost with nodes.

    python -m scripts.bench.nodes                                  five minutes of one core
    python -m scripts.bench.nodes --parts nodes --nodes 1000       six more
    python -m scripts.bench.nodes --parts losses --json nodes.json --plot nodes.png

Time is simulated. The server's own are the routing, the recovery, the scheduler and its prefix cache; a node's steps
take what the emulated 910B4 of configs/emulated_910b.yaml takes, a router's CPU what `scripts.bench.nodes.measure`
measured. Loads, for each node: 0.7 new chats a second, which share 8 system prompts and resend all before them; or 12
requests a second with the lengths of llm-serving's task 1, which share nothing.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

from scripts.bench.nodes import cases
from scripts.bench.nodes.cases import Case
from scripts.bench.nodes.costs import MEASURED
from scripts.bench.nodes.draw import draw
from scripts.bench.nodes.seen import Figures
from scripts.lab.arguments import count, counts, parser, say, words, write_json
from scripts.lab.errors import BenchError
from scripts.lab.table import markdown

PARTS = ("nodes", "router", "routers", "losses")
Found = list[tuple[Case, Figures]]

_HEAD = (
    "", "nodes", "routers", "TTFT p50, ms", "p99", "gap p50, ms", "p99", "hits, %", "requests/s", "tokens/s",
    "busiest router's CPU, %", "CPUs of all",
)  # fmt: skip
_PER_HOUR = 0.01  # of all nodes


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1 where no picture can be drawn."""
    options = _parser().parse_args(arguments)
    found: Found = []
    for part in options.parts:
        own = [(case, _run(case, options.seed)) for case in _cases(part, options)]
        print(f"\n{part}\n\n{_losses(own) if part == 'losses' else _table(own)}", flush=True)
        if part == "router":
            print("", *(line for load in cases.LOADS if (line := full(own, load))), sep="\n", flush=True)
        found += own
    report = {"costs_us": asdict(MEASURED), "seed": options.seed, "runs": [_told(*one) for one in found]}
    write_json(options.json, report)
    try:
        if options.plot:
            draw(found, options.plot)
    except BenchError as error:
        print(f"nodes: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    made = parser(__doc__)
    made.add_argument("--parts", type=words("part", PARTS), default=PARTS, help=f"of {', '.join(PARTS)}")
    made.add_argument("--nodes", type=counts(1000), default=(16, 64, 256), help="of the first part")
    made.add_argument("--routers", type=counts(64), default=(1, 2, 4, 8, 16), help="of the third part")
    made.add_argument("--few", type=count, default=48, help="nodes of the last two parts")
    made.add_argument("--losses", type=count, default=6, help="nodes that are lost in the last part")
    made.add_argument("--seed", type=count, default=1)
    made.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    made.add_argument("--plot", type=Path, metavar="FILE", help="draw them, too (PNG)")
    return made


def _cases(part: str, options: argparse.Namespace) -> list[Case]:
    if part == "nodes":
        return cases.by_nodes(options.nodes)
    if part == "router":
        return cases.of_one_router()
    if part == "routers":
        return cases.by_routers(options.routers, options.few)
    return cases.with_losses(options.few, options.losses)


def _run(case: Case, seed: int) -> Figures:
    say(case.name)
    return cases.run(case, seed)


def _told(case: Case, figures: Figures) -> dict[str, object]:
    fleet = case.fleet
    about = {"load": case.load, "nodes": fleet.nodes, "routers": fleet.routers, "division": fleet.division.value}
    return {"part": case.part, **about, "losses": len(fleet.losses), **asdict(figures)}


def _table(found: Found) -> str:
    return markdown(_HEAD, [_line(case, figures) for case, figures in found])


def _line(case: Case, figures: Figures) -> Sequence[object]:
    fleet = case.fleet
    return (
        case.load if fleet.routers == 1 else f"{case.load}, {fleet.division.value}",
        fleet.nodes,
        fleet.routers,
        f"{figures.ttft_p50:,.0f}",
        f"{figures.ttft_p99:,.0f}",
        round(figures.gap_p50, 1),
        round(figures.gap_p99, 1),
        round(100 * figures.hits, 1),
        round(figures.requests_s),
        f"{figures.tokens_s:,.0f}",
        round(100 * figures.busy),
        round(figures.cpus, 1),
    )


def full(found: Found, load: str) -> str:
    """Where one router's CPU is, between two runs; empty where no two are on either side of it."""
    own = [(case.fleet.nodes, figures) for case, figures in found if case.load == load]
    for (few, below), (many, above) in pairwise(own):
        if below.busy < 1 <= above.busy:
            nodes = few + (many - few) * (1 - below.busy) / (above.busy - below.busy)
            requests, tokens = (nodes / few * rate for rate in (below.requests_s, below.tokens_s))
            text = f"{load}: one router's CPU is full before {nodes:.0f} nodes"
            return f"{text}, with {requests:,.0f} requests and {tokens:,.0f} tokens a second"
    return ""


def _losses(found: Found) -> str:
    head = ("", "TTFT p99, ms", "gap p99, ms", "p99.9", "streams moved", "tokens again", "their wait p50, ms", "p99")
    whole = found[0][1]
    lines, hours = [], []
    for case, figures in found:
        lost, name = len(case.fleet.losses), case.losses
        waits = (f"{figures.wait_p50:,.0f}", f"{figures.wait_p99:,.0f}") if lost else (None, None)
        gaps = (f"{figures.ttft_p99:,.0f}", round(figures.gap_p99, 1), round(figures.gap_p999, 1))
        lines.append((f"{lost} {name}" if lost else name, *gaps, figures.moved, figures.again, *waits))
        if lost:
            hours.append((name, *_per_hour(case, figures, whole)))
    hour = ("1 % an hour", "streams hit, of a million", "tokens again, of a million")
    return f"{markdown(head, lines)}\n\n{markdown(hour, hours)}"


def _per_hour(case: Case, figures: Figures, whole: Figures) -> tuple[int, int]:
    """Of all streams, and of all tokens of that hour: as many losses as one node of a hundred, each as these were."""
    each, nodes = len(case.fleet.losses), case.fleet.nodes
    streams, tokens = (3600 * rate / nodes / _PER_HOUR for rate in (whole.requests_s, whole.tokens_s))
    return round(1e6 * figures.moved / each / streams), round(1e6 * figures.again / each / tokens)


if __name__ == "__main__":
    logging.getLogger("ringserve").setLevel(logging.CRITICAL)  # recovery reports each lost node
    sys.exit(main())
