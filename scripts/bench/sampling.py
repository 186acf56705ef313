"""Time of one sampling call for a batch, one core, no model.

    python -m scripts.bench.sampling [--rows 32] [--vocab 32000] [--calls 200] [--json FILE]

Logits are normal with a standard deviation of 2, drawn anew for every row. ``--json -`` prints JSON only.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from model.sampling import SampleOutputs, Sampler, SamplingLimits, SamplingParams

HISTORY = 1000  # tokens before the first one that is sampled
GREEDY = SamplingParams(temperature=0)
CASES = {
    "greedy": GREEDY,
    "temperature": SamplingParams(seed=1),
    "top-k 50": SamplingParams(seed=1, top_k=50),
    "top-k 5000": SamplingParams(seed=1, top_k=5000),
    "top-p 0.9": SamplingParams(seed=1, top_p=0.9),
    "top-p 0.99": SamplingParams(seed=1, top_p=0.99),
    "top-k 50, top-p 0.9": SamplingParams(seed=1, top_k=50, top_p=0.9),
    "min-p 0.05": SamplingParams(seed=1, min_p=0.05),
    "greedy, repetition penalty": SamplingParams(temperature=0, repetition_penalty=1.1),
    "greedy, 5 log-probabilities": SamplingParams(temperature=0, logprobs=5),
    "everything": SamplingParams(
        seed=1, temperature=0.8, top_k=50, top_p=0.9, min_p=0.01, repetition_penalty=1.1, logprobs=20
    ),
}


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds per call."""

    case: str
    median_ms: float
    p99_ms: float
    worst_ms: float
    cpu_ms: float  # mean processor time: what other processes on the machine do not touch


def measure(case: str, params: SamplingParams, *, rows: int, vocab: int, calls: int) -> Timing:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (rows, vocab)).astype(np.float32)
    sampler = Sampler(SamplingLimits(vocab, HISTORY + 2 * calls), rows)
    for row in range(rows):
        sampler.admit(row, params, rng.integers(0, vocab, HISTORY))
    index, out = np.arange(rows, dtype=np.int32), SampleOutputs.allocate(rows, 20)
    positions = np.full(rows, HISTORY, np.int32)
    times_ns, cpu_ns = np.zeros(calls), 0
    for call in range(-calls // 10, calls):  # the first ones warm up
        started, cpu_started = time.perf_counter_ns(), time.thread_time_ns()
        sampler.sample(logits, index, positions, out)
        if call >= 0:
            cpu_ns += time.thread_time_ns() - cpu_started
            times_ns[call] = time.perf_counter_ns() - started
        positions += 1
    if np.any(out.status):
        raise RuntimeError(f"{case}: status {out.status.tolist()}")
    median, p99 = np.percentile(times_ns, [50, 99]) / 1e6
    return Timing(case, float(median), float(p99), float(times_ns.max() / 1e6), cpu_ns / calls / 1e6)


def cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def print_table(timings: list[Timing], title: str) -> None:
    print(title)
    print(f"{'':30s}{'median':>9s}{'p99':>9s}{'worst':>9s}{'cpu':>9s}   ms per call")
    for timing in timings:
        print(
            f"{timing.case:30s}{timing.median_ms:9.3f}{timing.p99_ms:9.3f}{timing.worst_ms:9.3f}{timing.cpu_ms:9.3f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--vocab", type=int, default=32000)
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--json", metavar="FILE", help="also write the results there; -: only to the output")
    arguments = parser.parse_args()
    size = {"rows": arguments.rows, "vocab": arguments.vocab, "calls": arguments.calls}
    timings = [measure(case, params, **size) for case, params in CASES.items()]
    machine = f"{cpu_name()}, {os.cpu_count()} cores, one used"
    result = {"machine": machine, **size, "timings": [asdict(timing) for timing in timings]}
    if arguments.json == "-":
        json.dump(result, sys.stdout, indent=1)
        return
    print_table(timings, f"sampling [{arguments.rows}, {arguments.vocab}], {arguments.calls} calls, {machine}")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
