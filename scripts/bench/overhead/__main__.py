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
    ttft       the first token of an idle server (its parts: scripts.bench.first_token)
    exposed    exposed host time over devices of 0.5 to 22.5 ms per step
    tail       late tokens, and which part of their way was slow
    draws      128 rows that are sampled, with vocabularies of 32,000 and 128,256 tokens
    null       a device that takes no time: tokens per second over 64, 128 and 256 streams
    footprint  memory, idle CPU and start of the demo model's server

Devices are emulated but for the demo's: they take their time, whatever the batch, and compute nothing, so that what
is left is the hosts' work. Every variant is a real server with real HTTP streams, beside it llm-serving's data path,
rebuilt small (scripts/bench/overhead/replaced). Where tokens are chosen greedily all give the same texts, which is
checked. The client runs on the same CPUs.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from scripts.bench.overhead.exposed import STEPS_MS
from scripts.bench.overhead.report import draw, header, table
from scripts.bench.overhead.sections import SECTIONS, plan_of
from scripts.bench.overhead.servers import VARIANTS, choose
from scripts.lab.arguments import count, counts, parser, positive, say, words, write_json
from scripts.lab.errors import BenchError
from scripts.lab.goals import Goal
from scripts.lab.machine import describe_machine
from scripts.lab.others import Others

MAX_BATCH = 256
_FULL = {
    "batches": (1, 8, 32), "step_ms": 22.5, "seconds": 2.0, "rounds": 5, "ttft_requests": 40, "null_tokens": 500,
    "null_streams": (64, 128, 256), "draws_vocabularies": (32_000, 128_256),
    "idle_s": 10.0, "steps_ms": STEPS_MS, "fast_variants": "ringserve,replaced",
    "slow_variants": "ringserve,plain,host,plain-host,sampled,mixed,replaced",
}  # fmt: skip
_QUICK = {
    "batches": (1, 4), "step_ms": 3.0, "seconds": 0.4, "rounds": 1, "ttft_requests": 3, "null_tokens": 40,
    "null_streams": (64,), "draws_vocabularies": (4_000,),
    "idle_s": 1.0, "steps_ms": (1.0,), "fast_variants": "ringserve", "slow_variants": ",".join(VARIANTS),
}  # fmt: skip


def _times(text: str) -> tuple[float, ...]:
    return tuple(map(positive, text.split(",")))


def parse() -> argparse.Namespace:
    line = parser(__doc__)
    line.epilog = "variants:\n" + "\n".join(f"  {name:<13} {variant.meaning}" for name, variant in VARIANTS.items())
    add, sections = line.add_argument, words("section", SECTIONS)
    add("--section", type=sections, default=tuple(SECTIONS), metavar="NAMES", help="default: all")
    add("--batches", type=counts(MAX_BATCH), metavar="N,N", help="of streams, for steps, fast, demo; default 1,8,32")
    add("--seconds", type=positive, help="of each variant and batch in each round; default 2")
    add("--rounds", type=count, help="default 5")
    add("--only", type=choose, metavar="NAMES", help="some variants, of steps and fast")
    add("--step-ms", type=float, help="of the device of steps; default 22.5")
    add("--steps-ms", type=_times, metavar="MS,MS", help="of the devices of exposed; default 0.5,1,2,5,22.5")
    add(
        "--vocab",
        type=count,
        metavar="N",
        help="tokens of the emulated device's vocabulary; default 32000, of which "
        "the tokenizer knows 2048: for grammars, which cost more with more tokens",
    )
    add("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE", help="of RingServe's settings")
    add("--json", type=Path, metavar="FILE", help="also write the results there")
    add("--plot", type=Path, metavar="FILE", help="also draw where a token's time goes (PNG)")
    add("--quick", action="store_true", help="short: one round, steps of 3 ms, batches 1 and 4")
    given = line.parse_args()
    for name, value in (_QUICK if given.quick else _FULL).items():
        if getattr(given, name, None) is None:
            setattr(given, name, value)
    try:
        for section in {"steps", *given.section} & {"steps", "fast", "demo"}:
            plan_of(section, given)
    except ValueError as error:
        line.error(str(error))
    return given


def main() -> int:
    given = parse()
    others = Others()
    told: dict[str, Any] = {}
    try:
        with tempfile.TemporaryDirectory(prefix="ringserve-bench-") as directory:
            for name in given.section:
                told[name] = SECTIONS[name](given, Path(directory), say)
                print(table(told[name]), end="\n\n", flush=True)
        about = {"load_average": os.getloadavg(), "others_cpu_percent": round(others.percent(), 1)}
        report = {"machine": describe_machine() | about, "seconds": round(others.wall_s, 1), "quick": given.quick}
        print(header(report["machine"]))
        for goal in (goal for section in told.values() for goal in section["goals"]):
            print(Goal(**{name: value for name, value in goal.items() if name != "met"}).text)
        write_json(given.json, report | {"sections": told})
        if given.plot and "steps" in told:
            draw(told["steps"], given.plot)
    except (BenchError, OSError, ValueError) as error:
        print(f"bench_overhead: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
