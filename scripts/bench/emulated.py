"""How punctual the emulated device is, and what it costs the host.

    python -m scripts.bench.emulated [--step-ms 22.5] [--steps 200] [--vocab 32000] [--json FILE]

Decode steps at a context of about 500 tokens. ``late`` is the time between a step's deadline and its return,
``work`` the host's work inside a step (hashes and logits), ``cpu`` the share of one core over the whole run.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from model.emulated import CostModel, EmulatedRunner, EmulatedSettings
from model.runner import Bucket, StepInputs

CONTEXT, BLOCK_SIZE = 500, 16


@dataclass(frozen=True, slots=True)
class Punctuality:
    rows: int
    late_p50_us: float
    late_p99_us: float
    late_worst_us: float
    work_p50_us: float
    cpu_percent: float


def make_runner(rows: int, vocab: int, step_ms: float) -> EmulatedRunner:
    settings = EmulatedSettings(
        cost=CostModel(step_ms),
        vocab_size=vocab,
        max_length=4096,
        num_blocks=rows * 4096 // BLOCK_SIZE,
        block_size=BLOCK_SIZE,
        buckets=(Bucket(rows, rows),),
        eos_token_id=2,
    )
    runner = EmulatedRunner(settings)
    runner.load()
    return runner


def decode_inputs(runner: EmulatedRunner, rows: int) -> StepInputs:
    width = runner.facts.block_table_width
    tables = np.random.default_rng(0).permutation(rows * width).astype(np.int32).reshape(rows, width)
    block, offset = divmod(CONTEXT, BLOCK_SIZE)
    return StepInputs(
        input_ids=np.zeros(rows, np.int32),
        positions=np.full(rows, CONTEXT, np.int32),
        slot_mapping=tables[:, block] * BLOCK_SIZE + np.int32(offset),
        valid_length=np.full(rows, CONTEXT + 1, np.int32),
        q_seq_lens=np.ones(rows, np.int32),
        gather_index=np.arange(rows, dtype=np.int32),
        block_tables=tables,
    )


def times_us(runner: EmulatedRunner, rows: int, steps: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Duration of each step."""
    inputs = decode_inputs(runner, rows)
    binding = runner.bind(inputs)
    logits = np.zeros((rows, runner.facts.vocab_size), np.float32)
    durations = np.zeros(steps)
    for step in range(-5, steps):
        started = time.monotonic_ns()
        runner.step(binding, logits)
        if step >= 0:
            durations[step] = (time.monotonic_ns() - started) / 1e3
        inputs.input_ids[:] = logits.argmax(axis=1) if step < 0 else step
    return durations


def measure(rows: int, vocab: int, step_ms: float, steps: int) -> Punctuality:
    work = times_us(make_runner(rows, vocab, 0.0), rows, steps)
    runner = make_runner(rows, vocab, step_ms)
    wall, cpu = time.monotonic(), time.thread_time()
    late = times_us(runner, rows, steps) - step_ms * 1e3
    share = 100 * (time.thread_time() - cpu) / (time.monotonic() - wall)
    p50, p99 = np.percentile(late, [50, 99])
    return Punctuality(rows, float(p50), float(p99), float(late.max()), float(np.median(work)), share)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--step-ms", type=float, default=22.5)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--vocab", type=int, default=32000)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results there")
    arguments = parser.parse_args()
    print(f"emulated device, steps of {arguments.step_ms} ms, vocabulary {arguments.vocab}")
    print(f"{'rows':>6s}{'late p50':>10s}{'p99':>9s}{'worst':>9s}{'work p50':>10s}  us   cpu")
    results = [measure(rows, arguments.vocab, arguments.step_ms, arguments.steps) for rows in (1, 8, 32)]
    for r in results:
        late = f"{r.late_p50_us:10.1f}{r.late_p99_us:9.1f}{r.late_worst_us:9.1f}"
        print(f"{r.rows:6d}{late}{r.work_p50_us:10.1f}     {r.cpu_percent:5.2f} %")
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(r) for r in results], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
