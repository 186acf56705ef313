"""Measures the bare model step: no server, no sampling, just arrays in and logits out.

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
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from model.mindformers_runner import MindFormersRunner, MindFormersSettings
from model.runner import Bucket, RunnerFacts, StepInputs

PRESETS: dict[str, dict[str, int]] = {
    "125m": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "num_key_value_heads": 4,
             "intermediate_size": 2048, "vocab_size": 32000},
    "18m": {"hidden_size": 256, "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 4,
            "intermediate_size": 704, "vocab_size": 32000},
    "demo": {"hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 8, "num_key_value_heads": 4,
             "intermediate_size": 704, "vocab_size": 4096},
}  # fmt: skip

Attention = Literal["custom", "plain"]
STEPS_PER_TURN = 10


@dataclass(frozen=True, slots=True)
class Timing:
    """One shape with one attention."""

    attention: Attention
    tokens: int
    rows: int
    context: int  # keys per row, the new tokens included
    median_ms: float
    min_ms: float
    p99_ms: float
    weights_gb_per_s: float


def main() -> None:
    options = parse_arguments()
    bandwidth = memory_bandwidth(options.threads)
    runners = {attention: load_runner(options, attention) for attention in options.attention}
    timings = measure(runners, options)
    report = {
        "machine": machine(options.threads),
        "memory_gb_per_s": bandwidth,
        "model": options.preset or str(options.config),
        "timings": [asdict(timing) for timing in timings],
    }
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    print(table(timings, bandwidth))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--preset", choices=PRESETS, help="a model of random weights")
    model.add_argument("--config", type=Path, help="mindformers YAML, config.json, or its directory")
    parser.add_argument("--checkpoint", type=Path, help="weights for --config (default: random)")
    parser.add_argument("--rows", type=numbers, default=[1, 8, 32], help="decode shapes (default: 1,8,32)")
    parser.add_argument("--chunks", type=numbers, default=[128], help="prefill shapes, in tokens (default: 128)")
    parser.add_argument("--context", type=int, default=256, help="keys per row (default: 256)")
    parser.add_argument("--steps", type=int, default=60, help="steps measured per shape (default: 60)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of the operator")
    parser.add_argument("--attention", nargs="+", choices=["custom", "plain"], default=["custom", "plain"])
    parser.add_argument("--json", type=Path, help="write everything there")
    return parser.parse_args()


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",") if part]


def load_runner(options: argparse.Namespace, attention: Attention) -> MindFormersRunner:
    with tempfile.TemporaryDirectory() as directory:
        runner = MindFormersRunner(make_settings(options, attention, Path(directory)))
        runner.load(show_progress)
        runner.warm_up(show_progress)
    return runner


def measure(runners: dict[Attention, MindFormersRunner], options: argparse.Namespace) -> list[Timing]:
    """The runners take turns, so that whatever else the machine does falls on both."""
    timings = []
    for bucket in next(iter(runners.values())).facts.buckets:
        times: dict[Attention, list[float]] = {attention: [] for attention in runners}
        steps = {name: make_step(runner, bucket, options.context) for name, runner in runners.items()}
        for _ in range(-(-options.steps // STEPS_PER_TURN)):
            for attention, step in steps.items():
                times[attention] += take_turn(step)
        timings += [
            summary(attention, runners[attention], bucket, options.context, times[attention]) for attention in runners
        ]
    return timings


def summary(
    attention: Attention, runner: MindFormersRunner, bucket: Bucket, context: int, times: list[float]
) -> Timing:
    median, p99 = float(np.median(times)), float(np.percentile(times, 99))
    rate = read_bytes(runner) / median / 1e6
    return Timing(attention, bucket.tokens, bucket.rows, context, median, min(times), p99, rate)


def take_turn(step: Callable[[], None]) -> list[float]:
    """Milliseconds of each step of a turn, after one that is not counted."""
    step()
    times = []
    for _ in range(STEPS_PER_TURN):
        start = time.perf_counter()
        step()
        times.append((time.perf_counter() - start) * 1e3)
    return times


def make_settings(options: argparse.Namespace, attention: Attention, scratch: Path) -> MindFormersSettings:
    config = options.config
    if options.preset:
        config = scratch / "config.json"
        preset = {
            "model_type": "llama",
            "max_position_embeddings": options.context,
            **PRESETS[options.preset],
        }
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


def make_step(runner: MindFormersRunner, bucket: Bucket, context: int) -> Callable[[], None]:
    binding = runner.bind(full_inputs(bucket, runner.facts, context))
    logits = np.empty((bucket.rows, runner.facts.vocab_size), np.float32)
    return lambda: runner.step(binding, logits)


def full_inputs(bucket: Bucket, facts: RunnerFacts, context: int) -> StepInputs:
    """Every row with ``context`` keys in scattered blocks; its share of the tokens is new."""
    generator = np.random.default_rng(0)
    width = facts.block_table_width
    tables = generator.permutation(facts.num_blocks)[: bucket.rows * width].reshape(bucket.rows, width)
    fresh = np.full(bucket.rows, bucket.tokens // bucket.rows)
    fresh[: bucket.tokens % bucket.rows] += 1
    row = np.repeat(np.arange(bucket.rows), fresh)
    ends = np.cumsum(fresh)
    positions = np.arange(bucket.tokens) - (ends - fresh)[row] + context - fresh[row]
    slots = tables[row, positions // facts.block_size] * facts.block_size + positions % facts.block_size
    columns = (
        generator.integers(0, facts.vocab_size, bucket.tokens),
        positions,
        slots,
        np.full(bucket.rows, context),
        fresh,
        ends - 1,
        tables,
    )
    return StepInputs(*(np.ascontiguousarray(column, np.int32) for column in columns))


def read_bytes(runner: MindFormersRunner) -> int:
    """Bytes of the weights that a step reads whole: all but the embedding, of which it picks rows."""
    architecture = runner.architecture
    shapes = architecture.tensors()
    if not architecture.tied_embeddings:
        shapes.pop("model.tok_embeddings.embedding_weight")
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


def machine(threads: int) -> dict[str, Any]:
    names = [line.split(":")[1].strip() for line in _cpuinfo() if line.startswith(("model name", "CPU part"))]
    return {
        "processor": names[0] if names else platform.processor(),
        "architecture": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "operator_threads": threads,
        "python": platform.python_version(),
    }


def _cpuinfo() -> list[str]:
    return Path("/proc/cpuinfo").read_text().splitlines()


def table(timings: Sequence[Timing], bandwidth: float) -> str:
    lines = [
        f"memory reads {bandwidth:.1f} GB/s",
        "| tokens x rows | attention | median ms | min ms | p99 ms | weights GB/s | of memory |",
        "|---|---|---|---|---|---|---|",
    ]
    for timing in sorted(timings, key=lambda timing: (timing.tokens, timing.rows, timing.attention)):
        share = timing.weights_gb_per_s / bandwidth
        lines.append(
            f"| {timing.tokens} x {timing.rows} | {timing.attention} | {timing.median_ms:.2f} | {timing.min_ms:.2f} "
            f"| {timing.p99_ms:.2f} | {timing.weights_gb_per_s:.1f} | {share:.0%} |"
        )
    return "\n".join(lines)


def show_progress(what: str, done: int, total: int) -> None:
    print(f"\r{what} {done}/{total}", end="\n" if done == total else "", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
