"""Measures the bare model step: no server, no sampling, just arrays in and logits out.

    python -m scripts.bench.model
    python -m scripts.bench.model --preset 125m
    python -m scripts.bench.model --config model/demo --checkpoint model/demo --json bench-model.json
    python -m scripts.bench.model --preset 134m --engines mindspore openvino openvino-int8 --rows 1,2,8,32
    python -m scripts.bench.model --preset 134m --engines openvino-int8 openvino-int8-plain --chunks 256 --context 512

For each shape: median, minimum and 99th percentile of a step, and how fast weights are read against what the
memory gives. Engines take turns: mindformers' Llama with the C++ attention operator (custom) and with MindSpore's
own operators (plain), and the decoders for all families on MindSpore and on OpenVINO, whose weights may be narrower,
int8 with kernels of our own or with OpenVINO's (plain).
Close other programs first; the figures are of this machine at this moment.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from model.mindformers_runner import MindFormersRunner, MindFormersSettings
from model.mindspore_common.runner import GraphRunner
from model.mindspore_runner import MindSporeRunner, MindSporeSettings
from model.openvino import OpenVinoRunner, OpenVinoSettings
from model.openvino.requirements import BLOCK_SIZE
from model.runner import Bucket
from scripts.lab.arguments import count, counts, parser, write_json
from scripts.lab.machine import describe_machine
from scripts.lab.steps import step_inputs, timed_ms
from scripts.lab.table import markdown

PRESETS: dict[str, dict[str, int]] = {
    "134m": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "num_key_value_heads": 12,
             "intermediate_size": 2048, "vocab_size": 32000},
    "125m": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "num_key_value_heads": 4,
             "intermediate_size": 2048, "vocab_size": 32000},
    "18m": {"hidden_size": 256, "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 4,
            "intermediate_size": 704, "vocab_size": 32000},
    "demo": {"hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 8, "num_key_value_heads": 4,
             "intermediate_size": 704, "vocab_size": 4096},
}  # fmt: skip

ENGINES: dict[str, tuple[Callable[[Any], GraphRunner], Callable[..., Any], dict[str, Any]]] = {
    "custom": (MindFormersRunner, MindFormersSettings, {"attention": "custom"}),
    "plain": (MindFormersRunner, MindFormersSettings, {"attention": "plain"}),
    "mindspore": (MindSporeRunner, MindSporeSettings, {}),
    "openvino": (OpenVinoRunner, OpenVinoSettings, {}),
    "openvino-bf16": (OpenVinoRunner, OpenVinoSettings, {"weight_dtype": "bf16"}),
    "openvino-int8": (OpenVinoRunner, OpenVinoSettings, {"weight_dtype": "int8"}),
    "openvino-int8-plain": (OpenVinoRunner, OpenVinoSettings, {"weight_dtype": "int8", "own_products": False}),
}
"""A runner, its settings, and which of them are this engine's."""
WEIGHT_BYTES = {"openvino-bf16": 2, "openvino-int8": 1, "openvino-int8-plain": 1}

Timing = dict[str, Any]
"""One shape with one engine."""
STEPS_PER_TURN = 10


def main() -> None:
    options = parse_arguments()
    bandwidth = memory_bandwidth(options.threads)
    runners = {engine: load_runner(options, engine) for engine in options.engines}
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
    add("--engines", nargs="+", choices=ENGINES, default=["custom", "plain"], help="default: custom plain")
    add("--json", type=Path, metavar="FILE", help="write everything there")
    options = line.parse_args()
    if options.config is None and options.preset is None:
        options.preset = "demo"
    return options


def chunks(text: str) -> tuple[int, ...]:
    return counts(1 << 20)(text) if text else ()


def load_runner(options: argparse.Namespace, engine: str) -> GraphRunner:
    make, settings, own = ENGINES[engine]
    with tempfile.TemporaryDirectory() as directory:
        runner = make(settings(**make_settings(options, engine, Path(directory)), **own))
        runner.load(show_progress)
        runner.warm_up(show_progress)
    return runner


def measure(runners: dict[str, GraphRunner], options: argparse.Namespace) -> list[Timing]:
    """The runners take turns, so that whatever else the machine does falls on both."""
    timings: list[Timing] = []
    for bucket in next(iter(runners.values())).facts.buckets:
        times: dict[str, list[float]] = {engine: [] for engine in runners}
        steps = {}
        for engine, runner in runners.items():
            binding = runner.bind(step_inputs(runner.facts, bucket, options.context))
            logits = np.empty((bucket.rows, runner.facts.vocab_size), np.float32)
            steps[engine] = partial(runner.step, binding, logits)
        for _ in range(-(-options.steps // STEPS_PER_TURN)):
            for engine, step in steps.items():
                times[engine] += timed_ms(step, STEPS_PER_TURN)
        for engine, runner in runners.items():
            shape = {"tokens": bucket.tokens, "rows": bucket.rows, "context": options.context}
            least, median, p99 = np.percentile(times[engine], [0, 50, 99]).tolist()
            rate = read_bytes(engine, runner) / median / 1e6
            spread = {"median_ms": median, "min_ms": least, "p99_ms": p99}
            timings.append({"engine": engine, **shape, **spread, "weights_gb_per_s": rate})
    return timings


def make_settings(options: argparse.Namespace, engine: str, scratch: Path) -> dict[str, Any]:
    config = options.config
    if options.preset:
        config = scratch / "config.json"
        preset = {"model_type": "llama", "max_position_embeddings": options.context, **PRESETS[options.preset]}
        config.write_text(json.dumps(preset))
    rows = max(options.rows)
    size = BLOCK_SIZE if engine.startswith("openvino") else 16
    blocks = -(-options.context // size)
    buckets = {Bucket(count, count) for count in options.rows} | {Bucket(count, rows) for count in options.chunks}
    budget = max(bucket.tokens for bucket in buckets)
    return {
        "config_path": config,
        "checkpoint_path": options.checkpoint,
        "num_blocks": rows * blocks,
        "block_size": size,
        "max_rows": rows,
        "token_budget": budget,
        "max_length": options.context,
        "buckets": tuple(buckets | {Bucket(budget, rows)}),
        "threads": options.threads,
    }


def read_bytes(engine: str, runner: GraphRunner) -> int:
    """Bytes of the weights that a step reads whole: all but the embedding, of which it picks rows."""
    assert isinstance(runner, MindFormersRunner | MindSporeRunner | OpenVinoRunner)
    spec = runner.spec
    shapes = dict(spec.tensors())
    if not spec.tied_embeddings:
        shapes.pop("embed.weight")
    return sum(WEIGHT_BYTES.get(engine, 4) * int(np.prod(shape)) for shape in shapes.values())


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
    head = ("tokens x rows", "engine", "median ms", "min ms", "p99 ms", "weights GB/s", "of memory")
    lines = [
        [
            f"{timing['tokens']} x {timing['rows']}",
            timing["engine"],
            *(f"{timing[name]:.2f}" for name in ("median_ms", "min_ms", "p99_ms")),
            f"{timing['weights_gb_per_s']:.1f}",
            f"{timing['weights_gb_per_s'] / bandwidth:.0%}",
        ]
        for timing in sorted(timings, key=lambda timing: (timing["tokens"], timing["rows"], timing["engine"]))
    ]
    return f"memory reads {bandwidth:.1f} GB/s\n{markdown(head, lines)}"


def show_progress(what: str, done: int, total: int) -> None:
    print(f"\r{what} {done}/{total}", end="\n" if done == total else "", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
