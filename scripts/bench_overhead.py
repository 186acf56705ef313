"""Host overhead per step: the inter-token latency at an HTTP client, less the bare step of the same device.

    python scripts/bench_overhead.py                      all variants at batch 1, 8 and 32; about ten minutes
    python scripts/bench_overhead.py --quick              a minute, to see that it works; not for quoting
    python scripts/bench_overhead.py --only ringserve --set pipeline.spin_us.sampling=0

The device is emulated: it takes 22.5 ms for every decode step, whatever the batch, and computes nothing, so that what
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

from ipc_bench.clock import machine_busy_seconds
from ipc_bench.machine import describe_machine
from overhead_bench.client import StreamError
from overhead_bench.measure import Plan, TextError, measure
from overhead_bench.report import report, table
from overhead_bench.servers import ServerError
from overhead_bench.variants import VARIANTS, choose


def parse() -> tuple[Plan, argparse.Namespace]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", default="1,8,32", help="numbers of streams at once")
    parser.add_argument("--step-ms", type=float, default=22.5, help="what the emulated device takes for a step")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each variant and batch in each round")
    parser.add_argument("--rounds", type=int, default=3)
    names = ", ".join(variant.name for variant in VARIANTS)
    parser.add_argument("--only", metavar="NAMES", help=f"some of {names}")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a key of RingServe's"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results there")
    parser.add_argument("--quick", action="store_true", help="short: one round, steps of 3 ms, batches 1 and 4")
    options = parser.parse_args()
    if options.quick:
        options.batches, options.step_ms, options.seconds, options.rounds = "1,4", 3.0, 0.3, 1
    try:
        batches = tuple(int(word) for word in options.batches.split(","))
        plan = Plan(batches, options.step_ms, options.seconds, options.rounds, choose(options.only), (*options.set,))
        plan.check()
    except ValueError as error:
        parser.error(str(error))
    return plan, options


def main() -> int:
    plan, options = parse()
    began, busy = time.monotonic(), machine_busy_seconds()
    try:
        with tempfile.TemporaryDirectory(prefix="ringserve-bench-") as directory:
            results = measure(plan, Path(directory), lambda text: print(text, file=sys.stderr, flush=True))
    except (StreamError, ServerError, TextError, OSError) as error:
        print(f"bench_overhead: {error}", file=sys.stderr)
        return 1
    wall = time.monotonic() - began
    others = machine_busy_seconds() - busy - _own_seconds()
    machine = describe_machine() | {
        "load_average": os.getloadavg(),
        "others_cpu_percent": round(max(0.0, 100 * others / wall), 1),
    }
    told = report(results, plan, machine)
    print(table(told))
    if options.json:
        options.json.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return 0


def _own_seconds() -> float:
    """CPU time of this process and of all that it started, which have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


if __name__ == "__main__":
    sys.exit(main())
