"""What a greedy key costs a modest one: the server's own scheduler in simulated time.

    python -m scripts.bench.fairness                seconds
    python -m scripts.bench.fairness --server       a real server with an emulated device as well; four minutes
    python -m scripts.bench.fairness --plot bench-fairness.png --json bench-fairness.json

A greedy key sends a thousand requests at once. A modest one sends one every half a second, so that mostly some of its
own are under way, or, where both are greedy, three hundred at once. It is measured how long the modest one waits for
first tokens, and how many tokens it gets: alone; beside the greedy one, with a key of its own; and in order of
arrival, as with the greedy one's key. Steps take what configs/emulated_910b.yaml says: Llama-2-7B on an Ascend 910B4,
emulated.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from scripts.bench.fairness import live
from scripts.bench.fairness.scenarios import FIFO, ORDERS, SCENARIOS, Row, Scenario, goals, measure
from scripts.bench.fairness.simulation import Seen, Simulation
from scripts.lab.arguments import parser, positive, write_json
from scripts.lab.plot import BLUE, GREY, ORANGE, picture
from scripts.lab.table import columns

_HEAD = ("", "", "first token p50, ms", "p95", "tokens/s", "the greedy one's", "preemptions")


def simulate(scenario: Scenario, order: str, until_s: float) -> Seen:
    return Simulation(scenario.asked(order, until_s), fair=order != FIFO).run(until_s)


def main() -> int:
    line = parser(__doc__)
    line.add_argument("--seconds", type=positive, default=20.0, help="of each run, simulated or not (default: 20)")
    line.add_argument("--server", action="store_true", help="a real server, too")
    line.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of that server's settings")
    line.add_argument("--json", type=Path, metavar="FILE", help="also write the results there")
    line.add_argument("--plot", type=Path, metavar="FILE", help="also draw them (PNG)")
    given = line.parse_args()
    told = {"simulated": measure(simulate, SCENARIOS, given.seconds)}
    report("simulated", told["simulated"])
    if given.server:
        with live.server(given.set) as running:
            told["server"] = measure(lambda *which: live.run(running, *which), SCENARIOS, given.seconds)
        report("a real server, its device emulated", told["server"])
    write_json(given.json, {name: [row.told() for row in rows] for name, rows in told.items()})
    if given.plot:
        draw(told, given.plot)
    return 0


def report(what: str, rows: Sequence[Row]) -> None:
    print(f"{what}: the modest key")
    lines = [
        (row.scenario, row.order, _whole(row.first_p50_ms), _whole(row.first_p95_ms), _whole(row.modest_rate),
         _whole(row.greedy_rate), row.preemptions)
        for row in rows
    ]  # fmt: skip
    print(columns(_HEAD, lines, left=2))
    for goal in goals(rows, SCENARIOS):
        print(goal.text)


def _whole(number: float | None) -> int | None:
    return None if number is None else round(number)


def draw(told: dict[str, list[Row]], path: Path) -> None:
    """First tokens, and where both are greedy tokens. Raises BenchError."""
    with picture(path, len(told), 2, (11, 3.4 * len(told)), width_ratios=(3, 1)) as (figure, axes):
        for (what, rows), (first, rates) in zip(told.items(), axes, strict=True):
            for place, (order, colour) in enumerate(zip(ORDERS, (GREY, BLUE, ORANGE), strict=True)):
                own = [row for row in rows if row.order == order]
                waits = [row.first_p50_ms or 0.0 for row in own[:-1]]
                at = [number + 0.27 * (place - 1) for number in range(len(waits))]
                first.bar(at, waits, 0.25, color=colour, label=order)
                for x, wait in zip(at, waits, strict=True):
                    first.text(x, wait, f"{wait:.0f}" if wait else "none", ha="center", va="bottom", fontsize=8)
                rates.bar(place, own[-1].modest_rate, 0.7, color=colour)
            first.set_xticks(range(len(SCENARIOS) - 1), [one.name for one in SCENARIOS[:-1]], fontsize=8)
            first.set_title(f"{what}: median ms to the modest key's first token", loc="left", fontsize=10)
            first.legend(frameon=False, fontsize=8)
            rates.set_xticks(range(len(ORDERS)), ORDERS, fontsize=8)
            rates.set_title("its tokens/s, both greedy", loc="left", fontsize=10)
            for axis in (first, rates):
                axis.spines[["top", "right"]].set_visible(False)
        figure.tight_layout()


if __name__ == "__main__":
    raise SystemExit(main())
