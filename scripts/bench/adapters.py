"""Measures what LoRA adapters add to a model's step: no server, just arrays in and logits out.

    python -m scripts.bench.adapters
    python -m scripts.bench.adapters --preset 18m --rank 64 --json bench-adapters.json

For each shape a step in turns: without adapters, with some loaded that no row has, with one that all rows have, and
with two by half. All linear layers have them. Ratios are of medians and of minima, against no adapters. Weights are
random; close other programs first.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from model.adapters.configuration import MAX_RANK
from model.families import read_spec_file
from model.families.canonical import recipes
from model.mindspore_runner import MindSporeRunner, MindSporeSettings
from model.runner import Bucket
from scripts.bench.model import PRESETS, show_progress
from scripts.lab.arguments import count, counts, parser, write_json
from scripts.lab.machine import describe_machine
from scripts.lab.steps import greedy_step, step_inputs, timed_ms
from scripts.lab.table import markdown

USES: dict[str, tuple[int, ...]] = {"none loaded": (0,), "unused": (0,), "one, by all": (1,), "two, by half": (1, 2)}
"""By name: the rows' adapters, in turns."""
STEPS_PER_TURN = 5

Timing = dict[str, Any]
Step = Callable[[], None]


def main() -> None:
    options = parse_arguments()
    with tempfile.TemporaryDirectory() as directory, runners(options, Path(directory)) as (plain, adapted):
        timings = [timing for bucket in plain.facts.buckets for timing in measure(plain, adapted, bucket, options)]
    print(table(timings))
    machine = describe_machine() | {"operator_threads": options.threads}
    write_json(options.json, {"machine": machine, "model": options.preset, "rank": options.rank, "timings": timings})


def parse_arguments() -> argparse.Namespace:
    line = parser(__doc__)
    add, cpus = line.add_argument, len(os.sched_getaffinity(0))
    add("--preset", choices=PRESETS, default="125m", help="a model of random weights (default: 125m)")
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
    adapters = tuple(write_adapter(folder, number, options.rank) for number in (1, 2))
    both = loaded(options, folder, ()), loaded(options, folder, adapters)
    try:
        yield both
    finally:
        for runner in both:
            runner.close()


def write_adapter(folder: Path, number: int, rank: int) -> Path:
    """Of all linear layers."""
    generator, tensors = np.random.default_rng(number), {}
    for name, recipe in recipes(read_spec_file(folder)).items():
        for part in recipe if name.startswith("layers.") else ():
            if len(part.shape) > 1:
                module = f"base_model.model.{part.source.removesuffix('.weight')}"
                for letter, shape in (("A", (rank, part.shape[1])), ("B", (part.shape[0], rank))):
                    values = generator.standard_normal(shape, np.float32)
                    tensors[f"{module}.lora_{letter}.weight"] = values * np.float32(0.02)
    adapter = folder / f"adapter{number}"
    adapter.mkdir()
    settings = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": "all-linear"}
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    save_file(tensors, adapter / "adapter_model.safetensors")
    return adapter


def loaded(options: argparse.Namespace, folder: Path, adapters: tuple[Path, ...]) -> MindSporeRunner:
    rows = max(options.rows)
    buckets = {Bucket(n, n) for n in options.rows} | {Bucket(n, min(n, 2)) for n in options.chunks}
    budget = max(bucket.tokens for bucket in buckets)
    settings = MindSporeSettings(
        config_path=folder,
        adapters=adapters,
        num_blocks=rows * -(-options.context // 16),
        max_rows=rows,
        token_budget=budget,
        max_length=options.context,
        buckets=tuple(buckets | {Bucket(budget, rows)}),
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
    times: dict[str, list[float]] = {use: [] for use in USES}
    for _ in range(-(-options.steps // STEPS_PER_TURN)):
        for use, step in steps.items():
            times[use] += timed_ms(step, STEPS_PER_TURN)
    least, median = (partial(np.percentile, q=q) for q in (0, 50))
    for use, those in times.items():
        yield {
            "tokens": bucket.tokens,
            "rows": bucket.rows,
            "adapters": use,
            "median_ms": float(median(those)),
            "min_ms": float(least(those)),
            "median_ratio": float(median(those) / median(times["none loaded"])),
            "min_ratio": float(least(those) / least(times["none loaded"])),
        }


def step_of(runner: MindSporeRunner, bucket: Bucket, use: str, context: int) -> Step:
    inputs = step_inputs(runner.facts, bucket, context)
    inputs.adapter[:] = np.resize(USES[use], bucket.rows)
    return greedy_step(runner, runner.bind(inputs), bucket.rows)


def table(timings: list[Timing]) -> str:
    head = ("tokens x rows", "adapters", "median ms", "min ms", "of median", "of min")
    lines = [
        [
            f"{timing['tokens']} x {timing['rows']}",
            timing["adapters"],
            *(f"{timing[name]:.2f}" for name in ("median_ms", "min_ms")),
            *(f"{timing[name]:.3f}" for name in ("median_ratio", "min_ratio")),
        ]
        for timing in timings
    ]
    return markdown(head, lines)


if __name__ == "__main__":
    main()
