"""Measures the bare model step: no server, no sampling, just arrays in and logits out.

    python -m scripts.bench.model
    python -m scripts.bench.model --preset 125m
    python -m scripts.bench.model --config model/demo --checkpoint model/demo --json bench-model.json

For each shape: median, minimum and 99th percentile of a step, and how fast weights are read against what the
memory gives. Everything is measured twice, with the C++ attention operator and with MindSpore's own operators,
in turns. Close other programs first; the figures are of this machine at this moment.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from model.mindformers_runner import MindFormersRunner, MindFormersSettings
from model.runner import Bucket
from scripts.lab.arguments import count, counts, parser, write_json
from scripts.lab.machine import describe_machine
from scripts.lab.steps import step_inputs, timed_ms
from scripts.lab.table import markdown

PRESETS: dict[str, dict[str, int]] = {
    "125m": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "num_key_value_heads": 4,
             "intermediate_size": 2048, "vocab_size": 32000},
    "18m": {"hidden_size": 256, "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 4,
            "intermediate_size": 704, "vocab_size": 32000},
    "demo": {"hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 8, "num_key_value_heads": 4,
             "intermediate_size": 704, "vocab_size": 4096},
}  # fmt: skip

Attention = Literal["custom", "plain"]
Timing = dict[str, Any]
"""One shape with one attention."""
STEPS_PER_TURN = 10


def main() -> None:
    options = parse_arguments()
    bandwidth = memory_bandwidth(options.threads)
    runners = {attention: load_runner(options, attention) for attention in options.attention}
    timings = measure(runners, options)
    print(table(timings, bandwidth))
    report = {
        "machine": describe_machine() | {"operator_threads": options.threads},
        "memory_gb_per_s": bandwidth,
        "model": options.preset or str(options.config),
        "timings": timings,
    }
    write_json(options.json, report)


def parse_arguments() -> argparse.Namespace:
    line = parser(__doc__)
    model = line.add_mutually_exclusive_group()
    model.add_argument("--preset", choices=PRESETS, help="a model of random weights (default: demo)")
    model.add_argument("--config", type=Path, help="mindformers YAML, config.json, or its directory")
    add, cpus = line.add_argument, len(os.sched_getaffinity(0))
    add("--checkpoint", type=Path, help="weights for --config (default: random)")
    add("--rows", type=counts(4096), default=(1, 8, 32), metavar="N,N", help="decode shapes (default: 1,8,32)")
    add("--chunks", type=chunks, default=(128,), metavar="N,N", help="prefill shapes, tokens; default 128; '': none")
    add("--context", type=count, default=256, help="keys per row (default: 256)")
    add("--steps", type=count, default=60, help="steps measured per shape (default: 60)")
    add("--threads", type=count, default=cpus, help="of the operator (default: the number of CPUs)")
    add("--attention", nargs="+", choices=["custom", "plain"], default=["custom", "plain"])
    add("--json", type=Path, metavar="FILE", help="write everything there")
    options = line.parse_args()
    if options.config is None and options.preset is None:
        options.preset = "demo"
    return options


def chunks(text: str) -> tuple[int, ...]:
    return counts(1 << 20)(text) if text else ()


def load_runner(options: argparse.Namespace, attention: Attention) -> MindFormersRunner:
    with tempfile.TemporaryDirectory() as directory:
        runner = MindFormersRunner(make_settings(options, attention, Path(directory)))
        runner.load(show_progress)
        runner.warm_up(show_progress)
    return runner


def measure(runners: dict[Attention, MindFormersRunner], options: argparse.Namespace) -> list[Timing]:
    """The runners take turns, so that whatever else the machine does falls on both."""
    timings: list[Timing] = []
    for bucket in next(iter(runners.values())).facts.buckets:
        times: dict[Attention, list[float]] = {attention: [] for attention in runners}
        steps = {}
        for attention, runner in runners.items():
            binding = runner.bind(step_inputs(runner.facts, bucket, options.context))
            logits = np.empty((bucket.rows, runner.facts.vocab_size), np.float32)
            steps[attention] = partial(runner.step, binding, logits)
        for _ in range(-(-options.steps // STEPS_PER_TURN)):
            for attention, step in steps.items():
                times[attention] += timed_ms(step, STEPS_PER_TURN)
        for attention, runner in runners.items():
            shape = {"tokens": bucket.tokens, "rows": bucket.rows, "context": options.context}
            least, median, p99 = np.percentile(times[attention], [0, 50, 99]).tolist()
            rate = read_bytes(runner) / median / 1e6
            spread = {"median_ms": median, "min_ms": least, "p99_ms": p99}
            timings.append({"attention": attention, **shape, **spread, "weights_gb_per_s": rate})
    return timings


def make_settings(options: argparse.Namespace, attention: Attention, scratch: Path) -> MindFormersSettings:
    config = options.config
    if options.preset:
        config = scratch / "config.json"
        preset = {"model_type": "llama", "max_position_embeddings": options.context, **PRESETS[options.preset]}
        config.write_text(json.dumps(preset))
    rows = max(options.rows)
    blocks = -(-options.context // 16)
    buckets = {Bucket(count, count) for count in options.rows} | {Bucket(count, rows) for count in options.chunks}
    budget = max(bucket.tokens for bucket in buckets)
    return MindFormersSettings(
        config_path=config,
        checkpoint_path=options.checkpoint,
        num_blocks=rows * blocks,
        max_rows=rows,
        token_budget=budget,
        max_length=options.context,
        buckets=tuple(buckets | {Bucket(budget, rows)}),
        attention=attention,
        threads=options.threads,
    )


def read_bytes(runner: MindFormersRunner) -> int:
    """Bytes of the weights that a step reads whole: all but the embedding, of which it picks rows."""
    spec = runner.spec
    shapes = spec.tensors()
    if not spec.tied_embeddings:
        shapes.pop("embed.weight")
    return sum(4 * int(np.prod(shape)) for shape in shapes.values())


def memory_bandwidth(threads: int) -> float:
    """GB/s at which all threads together read one large array; the best of several passes."""
    parts = np.array_split(np.zeros(1 << 28, np.int32), threads)
    for part in parts:
        part.fill(1)
    best = 0.0
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(8):
            start = time.perf_counter()
            list(pool.map(np.max, parts))
            best = max(best, sum(part.nbytes for part in parts) / (time.perf_counter() - start) / 1e9)
    return best


def table(timings: list[Timing], bandwidth: float) -> str:
    head = ("tokens x rows", "attention", "median ms", "min ms", "p99 ms", "weights GB/s", "of memory")
    lines = [
        [
            f"{timing['tokens']} x {timing['rows']}",
            timing["attention"],
            *(f"{timing[name]:.2f}" for name in ("median_ms", "min_ms", "p99_ms")),
            f"{timing['weights_gb_per_s']:.1f}",
            f"{timing['weights_gb_per_s'] / bandwidth:.0%}",
        ]
        for timing in sorted(timings, key=lambda timing: (timing["tokens"], timing["rows"], timing["attention"]))
    ]
    return f"memory reads {bandwidth:.1f} GB/s\n{markdown(head, lines)}"


def show_progress(what: str, done: int, total: int) -> None:
    print(f"\r{what} {done}/{total}", end="\n" if done == total else "", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
