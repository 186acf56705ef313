"""Measures what LoRA adapters add to a model's step: no server, just arrays in and logits out.

    python -m scripts.bench.adapters
    python -m scripts.bench.adapters --preset 18m --rank 64 --json bench-adapters.json

For each shape a step in turns: without adapters, with some loaded that no row has, with one that all rows have, and
with two by half. All linear layers have them. Ratios are against no adapters: of the time, and of the
CPU time of all threads, which others disturb less. Weights are random; close other programs first.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.adapters.configuration import MAX_RANK
from model.families import read_spec_file
from model.families.canonical import recipes
from model.mindspore_runner import MindSporeRunner, MindSporeSettings
from model.runner import Bucket
from scripts.bench.model import PRESETS, show_progress
from scripts.lab.arguments import count, counts, parser, write_json
from scripts.lab.machine import describe_machine
from scripts.lab.steps import greedy_step, step_inputs
from scripts.lab.table import markdown
from scripts.tools.random_adapter import save, write_adapter

USES: dict[str, tuple[int, ...]] = {"none loaded": (0,), "unused": (0,), "one, by all": (1,), "two, by half": (1, 2)}
"""By name: the rows' adapters, in turns."""

Timing = dict[str, Any]
Step = Callable[[], None]


def main() -> None:
    options = parse_arguments()
    with tempfile.TemporaryDirectory() as directory, runners(options, Path(directory)) as (plain, adapted):
        timings = [timing for bucket in shapes(options) for timing in measure(plain, adapted, bucket, options)]
    print(table(timings))
    machine = describe_machine() | {"operator_threads": options.threads}
    write_json(
        options.json,
        {
            "machine": machine,
            "model": options.preset,
            "dtype": options.dtype,
            "rank": options.rank,
            "timings": timings,
        },
    )


def parse_arguments() -> argparse.Namespace:
    line = parser(__doc__)
    add, cpus = line.add_argument, len(os.sched_getaffinity(0))
    add("--preset", choices=PRESETS, default="125m", help="a model of random weights (default: 125m)")
    add("--dtype", choices=("bfloat16", "float32"), default="bfloat16", help="of its weights (default: bfloat16)")
    add("--rank", type=count, default=16, help=f"of the adapters, up to {MAX_RANK} (default: 16)")
    add("--rows", type=counts(4096), default=(1, 8, 32), metavar="N,N", help="decode shapes (default: 1,8,32)")
    add("--chunks", type=counts(1 << 20), default=(256,), metavar="N,N", help="prefill shapes, tokens (default: 256)")
    add("--context", type=count, default=256, help="keys per row (default: 256)")
    add("--steps", type=count, default=60, help="steps measured per shape (default: 60)")
    add("--threads", type=count, default=cpus, help="of the operators (default: the number of CPUs)")
    add("--json", type=Path, metavar="FILE", help="write everything there")
    return line.parse_args()


@contextmanager
def runners(options: argparse.Namespace, folder: Path) -> Iterator[tuple[MindSporeRunner, MindSporeRunner]]:
    """One without adapters, and one with two."""
    config = {"model_type": "llama", "max_position_embeddings": options.context, **PRESETS[options.preset]}
    (folder / "config.json").write_text(json.dumps(config))
    if options.dtype == "bfloat16":
        write_base(folder)
    adapters = tuple(
        write_adapter(folder, folder / f"adapter{number}", rank=options.rank, seed=number) for number in (1, 2)
    )
    both = loaded(options, folder, ()), loaded(options, folder, adapters)
    try:
        yield both
    finally:
        for runner in both:
            runner.close()


def write_base(folder: Path) -> None:
    """Random weights of bfloat16; of float32 the engine makes some itself."""
    generator = np.random.default_rng(0)
    tensors: dict[str, NDArray[Any]] = {}
    for recipe in recipes(read_spec_file(folder)).values():
        for part in recipe:
            values = generator.standard_normal(part.shape, np.float32) * np.float32(0.02)
            tensors[part.source] = (values.view(np.uint32) >> 16).astype(np.uint16)
    save(tensors, folder / "model.safetensors", "BF16")


def shapes(options: argparse.Namespace) -> tuple[Bucket, ...]:
    """Decode rows, and chunks of two prompts."""
    buckets = {Bucket(n, n) for n in options.rows} | {Bucket(n, min(n, 2)) for n in options.chunks}
    return tuple(sorted(buckets))


def loaded(options: argparse.Namespace, folder: Path, adapters: tuple[Path, ...]) -> MindSporeRunner:
    rows = max(options.rows)
    buckets = shapes(options)
    budget = max(bucket.tokens for bucket in buckets)
    settings = MindSporeSettings(
        config_path=folder,
        checkpoint_path=folder if options.dtype == "bfloat16" else None,
        adapters=adapters,
        num_blocks=rows * -(-options.context // 16),
        max_rows=rows,
        token_budget=budget,
        max_length=options.context,
        buckets=(*buckets, Bucket(budget, rows)),
        threads=options.threads,
    )
    runner = MindSporeRunner(settings)
    runner.load(show_progress)
    runner.warm_up(show_progress)
    return runner


def measure(
    plain: MindSporeRunner, adapted: MindSporeRunner, bucket: Bucket, options: argparse.Namespace
) -> Iterator[Timing]:
    """The uses take turns, so that whatever else the machine does falls on all."""
    steps = {use: step_of(plain if use == "none loaded" else adapted, bucket, use, options.context) for use in USES}
    times: dict[str, list[tuple[float, float]]] = {use: [] for use in USES}
    for step in steps.values():
        step()
    for _ in range(options.steps):
        for use, step in steps.items():
            times[use].append(timed(step))
    base = spread(times["none loaded"])
    for use, those in times.items():
        of_use = spread(those)
        ratios = {f"{name}_ratio": of_use[name] / base[name] for name in base}
        yield {"tokens": bucket.tokens, "rows": bucket.rows, "adapters": use, **of_use, **ratios}


def timed(step: Step) -> tuple[float, float]:
    """Milliseconds, and milliseconds of CPU time of all threads."""
    began, used = time.perf_counter_ns(), time.process_time_ns()
    step()
    return (time.perf_counter_ns() - began) / 1e6, (time.process_time_ns() - used) / 1e6


def spread(times: list[tuple[float, float]]) -> dict[str, float]:
    median = np.median(times, axis=0)
    least = np.min(times, axis=0)
    values = {"median": median[0], "min": least[0], "cpu_median": median[1], "cpu_min": least[1]}
    return {name: float(value) for name, value in values.items()}


def step_of(runner: MindSporeRunner, bucket: Bucket, use: str, context: int) -> Step:
    inputs = step_inputs(runner.facts, bucket, context)
    inputs.adapter[:] = np.resize(USES[use], bucket.rows)
    return greedy_step(runner, runner.bind(inputs), bucket.rows)


def table(timings: list[Timing]) -> str:
    """Milliseconds, and ratios to none loaded."""
    columns = ("median", "min", "cpu_median", "cpu_min")
    head = ("tokens x rows", "adapters", *columns[:3:2], *(f"of {name}" for name in columns))
    lines = [
        [
            f"{timing['tokens']} x {timing['rows']}",
            timing["adapters"],
            *(f"{timing[name]:.2f}" for name in columns[:3:2]),
            *(f"{timing[f'{name}_ratio']:.3f}" for name in columns),
        ]
        for timing in timings
    ]
    return markdown(head, lines)


if __name__ == "__main__":
    main()
