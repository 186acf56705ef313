"""How punctual the emulated device is, and what it costs the host.

    python -m scripts.bench.emulated [--step-ms 22.5] [--steps 200] [--vocab 32000] [--json FILE]

Decode steps of 1, 8 and 32 rows, whose logits go to the host. ``late`` is the time between a step's deadline and its
return, ``work`` the host's work inside a step (hashes and logits), ``cpu`` the share of one core over the whole run.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np

from model.runner import Runner
from pipeline.config import load_configuration
from pipeline.runtime.engines import make_runner
from scripts.bench.overhead.device import Device, bare_steps
from scripts.lab.arguments import count, parser, positive, write_json
from scripts.lab.table import columns

HEAD = ("rows", "late p50, us", "p99", "worst", "work p50, us", "cpu, %")


def device(rows: int, vocab: int, step_ms: float) -> Runner:
    with tempfile.TemporaryDirectory() as folder:
        file = Device(step_ms).write(Path(folder) / "device.yaml", rows)
        runner = make_runner(load_configuration(file, [f"model_config.vocab_size={vocab}"]))
    runner.load()
    runner.warm_up()
    return runner


def measure(rows: int, vocab: int, step_ms: float, steps: int) -> dict[str, float]:
    work_us = bare_steps(device(rows, vocab, 0.0), rows, steps, greedy=False) / 1e3
    runner = device(rows, vocab, step_ms)
    wall, cpu = time.monotonic(), time.thread_time()
    late_us = bare_steps(runner, rows, steps, greedy=False) / 1e3 - step_ms * 1e3
    share = 100 * (time.thread_time() - cpu) / (time.monotonic() - wall)
    p50, p99, worst = np.percentile(late_us, [50, 99, 100]).tolist()
    return {
        "rows": rows,
        "late_p50_us": p50,
        "late_p99_us": p99,
        "late_worst_us": worst,
        "work_p50_us": float(np.median(work_us)),
        "cpu_percent": share,
    }


def main() -> None:
    line = parser(__doc__)
    line.add_argument("--step-ms", type=positive, default=22.5, help="default 22.5")
    line.add_argument("--steps", type=count, default=200, help="default 200")
    line.add_argument("--vocab", type=count, default=32000, help="default 32000")
    line.add_argument("--json", type=Path, metavar="FILE", help="also write the results there")
    given = line.parse_args()
    rows = [measure(rows, given.vocab, given.step_ms, given.steps) for rows in (1, 8, 32)]
    print(f"emulated device, steps of {given.step_ms} ms, vocabulary {given.vocab}")
    print(columns(HEAD, [[f"{value:.4g}" for value in row.values()] for row in rows], left=0))
    write_json(given.json, rows)


if __name__ == "__main__":
    main()
