"""A model's step by one process and by several ranks, in turns; and what their sums over shared memory cost.

    python -m scripts.bench.ranks
    python -m scripts.bench.ranks --preset 18m --ranks 2 --rows 1,8 --json bench-ranks.json

Random weights, the engine mindspore, and as many threads for all ranks together as for one alone. On CPU ranks are
there to be tested: one process uses all CPUs and all the memory's bandwidth already.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from model.layout import compile_order
from model.mindspore_common.ranks import Gather, Ranks, segment_bytes
from model.mindspore_runner import MindSporeRunner, MindSporeSettings
from model.runner import Bucket
from scripts.bench.model import PRESETS, make_settings
from scripts.lab.arguments import count, counts, parser, say, write_json
from scripts.lab.machine import describe_machine
from scripts.lab.steps import greedy_step, step_inputs, timed_ms
from scripts.lab.table import markdown

STEPS_PER_TURN = 10
GATHER_BYTES = (1 << 10, 1 << 14, 1 << 18)

Timing = dict[str, Any]

_loaded: list[MindSporeRunner] = []  # of a rank's process


def main() -> None:
    options = parse_arguments()
    with ExitStack() as stack:
        fd = os.memfd_create("ranks")
        stack.callback(os.close, fd)
        os.ftruncate(fd, segment_bytes(options.ranks))
        context = multiprocessing.get_context("spawn")
        one, *several = [stack.enter_context(ProcessPoolExecutor(1, context)) for _ in range(1 + options.ranks)]
        path = f"/proc/{os.getpid()}/fd/{fd}"
        loading = [one.submit(load, options, Ranks(), path)]
        wait(loading)
        wait([pool.submit(load, options, Ranks(i, options.ranks), path) for i, pool in enumerate(several)])
        timings = [measure([one], several, bucket, options) for bucket in compile_order(buckets_of(options))]
        gathers = wait([pool.submit(time_gathers, options.ranks) for pool in several])[0]
    print(table(timings, gathers, options.ranks))
    report = {"machine": describe_machine(), "model": options.preset, "timings": timings, "gathers_us": gathers}
    write_json(options.json, report)


def parse_arguments() -> argparse.Namespace:
    line = parser(__doc__)
    add, cpus = line.add_argument, len(os.sched_getaffinity(0))
    add("--preset", choices=PRESETS, default="134m", help="a model of random weights (default: 134m)")
    add("--ranks", type=count, default=2, help="processes that are measured beside one (default: 2)")
    add("--rows", type=counts(4096), default=(1, 8, 32), metavar="N,N", help="decode shapes (default: 1,8,32)")
    add("--context", type=count, default=256, help="keys per row (default: 256)")
    add("--steps", type=count, default=60, help="steps measured per shape (default: 60)")
    add("--threads", type=count, default=cpus, help="of one process alone (default: the number of CPUs)")
    add("--json", type=Path, metavar="FILE", help="write everything there")
    options = line.parse_args()
    options.config = options.checkpoint = None
    options.chunks = ()
    if options.ranks < 2:
        sys.exit(f"--ranks is {options.ranks}; at least 2 are compared with one")
    return options


def buckets_of(options: argparse.Namespace) -> tuple[Bucket, ...]:
    return tuple(Bucket(rows, rows) for rows in options.rows)


def wait(calls: list[Future[Any]]) -> list[Any]:
    return [call.result(600) for call in calls]


# ---- in the ranks' processes ---------------------------------------------------------------------------------------


def load(options: argparse.Namespace, ranks: Ranks, segment: str) -> None:
    fd = os.open(segment, os.O_RDWR)
    threads = max(1, options.threads // ranks.count)
    with tempfile.TemporaryDirectory() as directory:
        shared = make_settings(options, "mindspore", Path(directory)) | {"threads": threads}
        own = Ranks(ranks.rank, ranks.count, fd)
        runner = MindSporeRunner(MindSporeSettings(**shared, ranks=own))
        runner.load()
        runner.warm_up()
    os.close(fd)
    _loaded.append(runner)


def time_steps(bucket: Bucket, context: int) -> list[float]:
    """Milliseconds of some steps."""
    runner = _loaded[0]
    binding = runner.bind(step_inputs(runner.facts, bucket, context))
    times = timed_ms(greedy_step(runner, binding, bucket.samples), STEPS_PER_TURN)
    runner.abandon()
    return times


def time_gathers(ranks: int) -> dict[int, float]:
    """Microseconds by bytes, the best of many."""
    gather = Gather(ranks)
    calls = {
        size: partial(gather, np.zeros(size, np.uint8), np.zeros((ranks, size), np.uint8)) for size in GATHER_BYTES
    }
    return {size: 1e3 * min(timed_ms(call, 500)) for size, call in calls.items()}


# ---- here ----------------------------------------------------------------------------------------------------------


def measure(
    one: list[ProcessPoolExecutor], several: list[ProcessPoolExecutor], bucket: Bucket, options: argparse.Namespace
) -> Timing:
    """They take turns, so that whatever else the machine does falls on both."""
    times: dict[int, list[float]] = {1: [], options.ranks: []}
    for _ in range(-(-options.steps // STEPS_PER_TURN)):
        for pools in (one, several):
            found = wait([pool.submit(time_steps, bucket, options.context) for pool in pools])
            times[len(pools)] += found[0]
    say(f"{bucket.rows} rows")
    summary = {
        ranks: dict(zip(("min_ms", "median_ms"), np.percentile(values, [0, 50]).tolist(), strict=True))
        for ranks, values in times.items()
    }
    return {"rows": bucket.rows, "context": options.context, "by_ranks": summary}


def table(timings: list[Timing], gathers: dict[int, float], ranks: int) -> str:
    head = ("rows", "1 process, ms (min)", f"{ranks} ranks, ms (min)", "ratio of medians")
    lines = []
    for timing in timings:
        one, several = timing["by_ranks"][1], timing["by_ranks"][ranks]
        cells = [f"{each['median_ms']:.2f} ({each['min_ms']:.2f})" for each in (one, several)]
        lines.append([str(timing["rows"]), *cells, f"{several['median_ms'] / one['median_ms']:.2f}"])
    costs = [[f"{size} bytes", f"{least:.1f}"] for size, least in gathers.items()]
    return f"{markdown(head, lines)}\n\n{markdown(('gather of each rank', 'least, µs'), costs)}"


if __name__ == "__main__":
    main()
