"""Whether stages that wait take time from a model that computes on the same CPUs.

    python -m scripts.bench.waiting                    a minute
    python -m scripts.bench.waiting --threads 1 --rows 8 --json bench-waiting.json

The demo model runs its steps in this process, with as many threads as CPUs. After each step it publishes a slot on
two rings, whose readers, in processes of their own, then wait for the next, as sampling and preprocess do. In turns,
within one run: nobody waits; readers spin as `pipeline.host.cpu_placement` decides for this host; up to 100 µs, as
rings do where nobody decides; and all the time, to show that the measurement can tell.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np

import ipc
from model.demo import DEMO_DIR
from model.mindformers_runner import MindFormersRunner, MindFormersSettings
from model.runner import Bucket
from pipeline.config import load_configuration
from pipeline.host.cpu_placement import spin_us, usable_cpus
from pipeline.wire.topology import BEHIND_FRONT, INFERENCE, SAMPLING
from scripts.lab.arguments import count, parser, write_json
from scripts.lab.clock import cpu_seconds
from scripts.lab.paths import ROOT
from scripts.lab.steps import greedy_step, step_inputs, timed_ms
from scripts.lab.table import markdown

TURN = 40  # steps
READERS = [role.name for role in BEHIND_FRONT if role is not INFERENCE]
LONG_US = 50_000.0
"""Longer than a step."""
COMPILED = ROOT / ".cache/compile"
Timing = dict[str, Any]


MANNERS = ("nobody waits", "as decided for this host", "up to 100 µs", "always awake")


class Readers:
    """Processes that wait for the next slot, spinning for up to `spin_us` before they sleep, and the rings on which
    it comes. `spin_us` None: there are none."""

    def __init__(self, spin_us: float | None) -> None:
        self.spin_us = spin_us
        names = READERS if spin_us is not None else ()
        self._rings = [ipc.SlotRing.create(name, slots=4, slot_size=64) for name in names]
        self._ends = [ring.producer(label=INFERENCE.name) for ring in self._rings]
        self._processes: list[BaseProcess] = []

    def start(self) -> None:
        spawn = multiprocessing.get_context("spawn")
        for ring in self._rings:
            self._processes.append(spawn.Process(target=read_for_ever, args=(ring.handle, self.spin_us)))
            self._processes[-1].start()
            ring.wait_attached(60)

    def publish(self) -> None:
        for end in self._ends:
            with end.reserve(1.0):
                pass

    def cpu_s(self) -> float:
        return sum(cpu_seconds(process.pid) for process in self._processes if process.pid)

    def close(self) -> None:
        for end in self._ends:
            end.close()
        for process in self._processes:
            process.join(10)
        for ring in self._rings:
            ring.__exit__()


def read_for_ever(handle: ipc.RingHandle, spin: float) -> None:
    """As a stage does that has nothing to do but to wait; it gives way to the model as stages do."""
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    over = contextlib.suppress(ipc.RingClosed, ipc.PeerDied)
    with over, ipc.SlotRing.from_handle(handle) as ring, ring.consumer(spin_us=spin) as end:
        while True:
            end.read().release()


def main() -> int:
    options = parse()
    step = load(options.threads, options.rows)
    with contextlib.ExitStack() as stack:
        groups = []
        for spin in (None, decided(options.threads), ipc.DEFAULT_SPIN_US, LONG_US):
            groups.append(Readers(spin))
            stack.callback(groups[-1].close)
            groups[-1].start()
        timings = measure(step, groups, options.rounds)
    print(table(timings))
    size = {"cpus": usable_cpus(), "threads": options.threads, "rows": options.rows}
    write_json(options.json, size | {"timings": timings})
    return 0


def parse() -> argparse.Namespace:
    line = parser(__doc__)
    cpus = len(os.sched_getaffinity(0))
    line.add_argument("--threads", type=count, default=cpus, help="of the model; default: the number of CPUs")
    line.add_argument("--rows", type=count, default=1, help="of a step; default 1")
    line.add_argument("--rounds", type=count, default=20, help=f"turns of {TURN} steps for each manner; default 20")
    line.add_argument("--json", type=Path, metavar="FILE", help="also write the results there")
    return line.parse_args()


def decided(threads: int) -> float:
    """What a server with the demo model would do here."""
    demo = ROOT / "configs/demo.yaml"
    config = load_configuration(demo, [f"pipeline.runner.threads={threads}"], other_host=True)
    return spin_us(SAMPLING.name, config, usable_cpus())


def load(threads: int, rows: int) -> Callable[[], None]:
    """One step of the demo model, with half of its context filled."""
    settings = MindFormersSettings(
        DEMO_DIR,
        DEMO_DIR,
        num_blocks=64 * rows,
        max_rows=rows,
        token_budget=rows,
        max_length=512,
        threads=threads,
        compile_cache_dir=COMPILED,
    )
    runner = MindFormersRunner(settings)
    runner.load()
    runner.warm_up()
    binding = runner.bind(step_inputs(runner.facts, Bucket(rows, rows), 256))
    return greedy_step(runner, binding, rows)


def measure(step: Callable[[], None], groups: Sequence[Readers], rounds: int) -> list[Timing]:
    """Each manner in turn, so that whatever else the machine does falls on all of them."""
    times: list[list[float]] = [[] for _ in groups]
    cpu_s = [0.0] * len(groups)
    for number in range(rounds):
        for place in range(len(groups))[:: 1 if number % 2 == 0 else -1]:
            before = groups[place].cpu_s()
            times[place] += take_turn(step, groups[place])
            cpu_s[place] += groups[place].cpu_s() - before
    alone_ms = float(np.median(times[0]))
    return [
        {
            "manner": manner,
            "spin_us": group.spin_us,
            "steps": len(taken),
            "median_ms": float(np.median(taken)),
            "p99_ms": float(np.percentile(taken, 99)),
            "ratio": float(np.median(taken)) / alone_ms,  # to steps with nobody waiting
            "readers_cpu_percent": 100 * used_s / (sum(taken) / 1e3),  # of one CPU
        }
        for manner, group, taken, used_s in zip(MANNERS, groups, times, cpu_s, strict=True)
    ]


def take_turn(step: Callable[[], None], group: Readers) -> list[float]:
    """Milliseconds of each step. Readers that never sleep are let go to sleep at the end: their next wait is over
    when the last slot has come, and longer than any budget."""
    times = timed_ms(step, TURN, group.publish)
    if group.spin_us == LONG_US:
        time.sleep(LONG_US / 1e6 + 0.05)
    return times


def table(timings: Sequence[Timing]) -> str:
    head = ("readers", "spin, µs", "step, median ms", "p99 ms", "to nobody waiting", "CPU of the readers")
    lines = []
    for row in timings:
        times = [f"{row[name]:.3f}" for name in ("median_ms", "p99_ms", "ratio")]
        lines.append([row["manner"], row["spin_us"], *times, f"{row['readers_cpu_percent']:.1f} %"])
    return markdown(head, lines)


if __name__ == "__main__":
    sys.exit(main())
