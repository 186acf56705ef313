"""Host overhead per step: the inter-token latency at an HTTP client, less the bare step of the same device.

    python -m scripts.bench.overhead                      everything; under ten minutes
    python -m scripts.bench.overhead --section steps      one section, or several, separated by commas
    python -m scripts.bench.overhead --quick              a minute, to see that it works; not for quoting
    python -m scripts.bench.overhead --section steps --only ringserve,replaced --batches 1 --rounds 9

Sections:
    steps      22.5 ms per step (Llama-2-7B on an Ascend 910B4): every variant
    fast       5 ms per step, a fast accelerator: the default, and the data path that is replaced
    demo       the demo model on CPU, whose compute shares the CPUs with the hosts' work
    context    contexts of 64 and of 4096 tokens
    ttft       the first token of an idle server
    null       a device that takes no time: tokens per second over 64 streams
    footprint  memory, idle CPU and start of the demo model's server

Devices are emulated but for the demo's: they take their time, whatever the batch, and compute nothing, so that what
is left is the hosts' work. Every variant is a real server with real HTTP streams, beside it llm-serving's data path,
rebuilt small (scripts/overhead_bench/replaced). Where tokens are chosen greedily all give the same texts, which is
checked. The client runs on the same CPUs.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from scripts.bench.overhead.client import StreamError
from scripts.bench.overhead.measure import Say, TextError
from scripts.bench.overhead.sections import SECTIONS, Options, chosen, default_options, quick_options
from scripts.bench.overhead.servers import ServerError
from scripts.bench.overhead.tables import goals_table, header
from scripts.bench.overhead.variants import VARIANTS
from scripts.lab.clock import machine_busy_seconds
from scripts.lab.machine import describe_machine


def parse() -> tuple[tuple[str, ...], Options, argparse.Namespace]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--section", default=",".join(SECTIONS), metavar="NAMES", help="default: all")
    parser.add_argument("--batches", help="numbers of streams at once, of steps, fast and demo; default 1,8,32")
    parser.add_argument("--seconds", type=float, help="of each variant and batch in each round; default 2")
    parser.add_argument("--rounds", type=int, help="default 5")
    names = ", ".join(variant.name for variant in VARIANTS)
    parser.add_argument("--only", metavar="NAMES", help=f"variants of steps and fast, some of {names}")
    parser.add_argument("--step-ms", type=float, help="of the device of steps; default 22.5")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a key of RingServe's"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results there")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="also draw where a token's time goes (PNG)")
    parser.add_argument("--quick", action="store_true", help="short: one round, steps of 3 ms, batches 1 and 4")
    given = parser.parse_args()
    try:
        sections = chosen(given.section)
        options = (quick_options() if given.quick else default_options()).changed(
            batches=given.batches, seconds=given.seconds, rounds=given.rounds, only=given.only,
            step_ms=given.step_ms, overrides=given.set,
        )  # fmt: skip
        options.check(sections)
    except ValueError as error:
        parser.error(str(error))
    return sections, options, given


def main() -> int:
    sections, options, given = parse()
    began, busy = time.monotonic(), machine_busy_seconds()
    told: dict[str, Any] = {}
    try:
        with tempfile.TemporaryDirectory(prefix="ringserve-bench-") as directory:
            for name in sections:
                told[name] = SECTIONS[name].run(options, Path(directory), _say)
                print(SECTIONS[name].table(told[name]), end="\n\n", flush=True)
    except (StreamError, ServerError, TextError, OSError, ValueError) as error:
        print(f"bench_overhead: {error}", file=sys.stderr)
        return 1
    wall = time.monotonic() - began
    others = machine_busy_seconds() - busy - _own_seconds()
    machine = describe_machine() | {
        "load_average": os.getloadavg(),
        "others_cpu_percent": round(max(0.0, 100 * others / wall), 1),
    }
    print(header(machine))
    print(goals_table([goal for section in told.values() for goal in section["goals"]]))
    if given.json:
        report = {"machine": machine, "seconds": round(wall, 1), "quick": given.quick, "sections": told}
        given.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return _plot(told, given.plot)


def _plot(told: dict[str, Any], path: Path | None) -> int:
    if path is None or "steps" not in told:
        return 0
    from scripts.bench.overhead.picture import draw

    try:
        draw(told["steps"], path)
    except ImportError:
        print("bench_overhead: --plot needs matplotlib (extra 'bench')", file=sys.stderr)
        return 1
    return 0


_say: Say = lambda text: print(text, file=sys.stderr, flush=True)  # noqa: E731


def _own_seconds() -> float:
    """CPU time of this process and of all that it started, which have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


if __name__ == "__main__":
    sys.exit(main())
