"""Which replica should get a request? The server's own router (`pipeline/front/delivery/routing/router.py`) beside
other rules, before replicas in simulated time, whose scheduler and prefix cache are the server's own, too.

    python -m scripts.bench.routing                           all of it: some 15 minutes
    python -m scripts.bench.routing --parts usual --only chats --replicas 16 --seeds 1,2,3 --seconds 15

The device is the emulated 910B4 of configs/emulated_910b.yaml: times are simulated, but for `pick`. Loads: prompts
with the lengths of llm-serving's task 1, and chats that share system prompts and whose turns resend all before them.
Figures are medians over the seeds, p99 of the time to the first token with the least and the most, too.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path

from scripts.bench.routing import cases
from scripts.bench.routing.cases import Case
from scripts.bench.routing.pick_time import REPLICAS, SIZES, microseconds
from scripts.bench.routing.simulation import Figures
from scripts.lab.arguments import count, counts, parser, positive, say, words, write_json
from scripts.lab.table import markdown

PARTS = ("usual", "unusual", "weights", "task1", "pick")
HEAD = ("", "TTFT p50, ms", "p99, ms", "least to most", "TPOT p50, ms", "p99, ms", "tokens/s", "hits, %", "end, s")


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    report: dict[str, object] = {"seeds": options.seeds, "seconds": options.seconds}
    with ProcessPoolExecutor(options.processes) as pool:
        for case in _chosen(options):
            if options.only not in case.name:
                continue
            report[case.name] = _compare(pool, case, options.seeds)
    if "pick" in options.parts:
        report["pick"] = _time_picks()
    write_json(options.json, report)


def _parser() -> argparse.ArgumentParser:
    made = parser(__doc__)
    made.add_argument("--parts", type=words("part", PARTS), default=PARTS, help=f"of {', '.join(PARTS)}")
    made.add_argument("--only", default="", metavar="TEXT", help="cases whose names contain it")
    made.add_argument("--replicas", type=counts(256), default=(4, 16), help="of the usual loads")
    made.add_argument("--seeds", type=counts(1 << 30), default=(11, 12, 13))
    made.add_argument("--seconds", type=positive, default=50.0, help="in which requests arrive")
    made.add_argument("--processes", type=count, default=2)
    made.add_argument("--json", type=Path)
    return made


def _chosen(options: argparse.Namespace) -> Iterable[Case]:
    if "usual" in options.parts:
        for replicas in options.replicas:
            yield from cases.usual(replicas, options.seconds)
    if "unusual" in options.parts:
        yield from cases.unusual(options.seconds)
    if "weights" in options.parts:
        yield from cases.other_weights(options.seconds)
    if "task1" in options.parts:
        yield from cases.task1()


def _compare(pool: ProcessPoolExecutor, case: Case, seeds: Sequence[int]) -> dict[str, list[dict[str, float]]]:
    say(case.name)
    running = {policy: [pool.submit(cases.run, case, policy, seed) for seed in seeds] for policy in case.policies}
    found = {policy: [one.result() for one in runs] for policy, runs in running.items()}
    print(f"\n{case.name}\n")
    print(markdown(HEAD, [_line(policy, figures) for policy, figures in found.items()]), flush=True)
    return {policy: [asdict(one) for one in figures] for policy, figures in found.items()}


def _line(policy: str, found: Sequence[Figures]) -> Sequence[object]:
    def median(name: str, decimals: int = 0) -> float:
        return round(float(statistics.median(getattr(figures, name) for figures in found)), decimals)

    p99 = [figures.ttft_p99 for figures in found]
    return (
        policy,
        median("ttft_p50"),
        median("ttft_p99"),
        f"{min(p99):,.0f} to {max(p99):,.0f}" if len(found) > 1 else "",
        median("tpot_p50", 1),
        median("tpot_p99", 1),
        median("tokens_s"),
        round(100 * statistics.median(figures.hits for figures in found), 1),
        median("seconds", 1),
    )


def _time_picks() -> list[dict[str, float]]:
    lines = []
    for size in SIZES:
        for replicas in REPLICAS:
            pick, whole = microseconds(size, replicas)
            lines.append({"bytes": size, "replicas": replicas, "pick_us": pick, "request_us": whole})
    head = ("prompt, bytes", "replicas", "to choose, µs", "all for a request, µs")
    print("\nWhat the router costs the front\n")
    print(markdown(head, [[str(line["bytes"]), *list(line.values())[1:]] for line in lines]), flush=True)
    return lines


if __name__ == "__main__":
    main()
