"""Time of one sampling call for a batch, one core, no model.

    python -m scripts.bench.sampling [--rows 32] [--vocab 32000] [--calls 200] [--json FILE]

Logits are normal with a standard deviation of 2, drawn anew for every row. ``--json -`` prints JSON only.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

from model.sampling import SampleOutputs, Sampler, SamplingLimits, SamplingParams
from scripts.lab.arguments import count, parser, write_json
from scripts.lab.machine import describe_machine
from scripts.lab.table import columns

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
    "greedy, a mask": SamplingParams(temperature=0, grammar="of no matter here"),
    "everything": SamplingParams(
        seed=1, temperature=0.8, top_k=50, top_p=0.9, min_p=0.01, repetition_penalty=1.1, logprobs=20
    ),
}


def measure(case: str, params: SamplingParams, *, rows: int, vocab: int, calls: int) -> dict[str, object]:
    """Milliseconds per call."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (rows, vocab)).astype(np.float32)
    sampler = Sampler(SamplingLimits(vocab, HISTORY + 2 * calls), rows, masks=bool(params.grammar))
    for row in range(rows):
        sampler.admit(row, params, rng.integers(0, vocab, HISTORY))
        sampler.mask(row)[:] = rng.integers(0, 2**32, sampler.mask(row).size, np.uint32)
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
    median, p99, worst = (np.percentile(times_ns, [50, 99, 100]) / 1e6).tolist()
    # cpu: mean processor time, which other processes on the machine do not touch
    return {"case": case, "median_ms": median, "p99_ms": p99, "worst_ms": worst, "cpu_ms": cpu_ns / calls / 1e6}


def main() -> None:
    line = parser(__doc__)
    line.add_argument("--rows", type=count, default=32, help="of the batch; default 32")
    line.add_argument("--vocab", type=count, default=32000, help="default 32000")
    line.add_argument("--calls", type=count, default=200, help="of each case; default 200")
    line.add_argument("--json", metavar="FILE", help="also write the results there; -: only to the output")
    given = line.parse_args()
    size = {"rows": given.rows, "vocab": given.vocab, "calls": given.calls}
    timings = [measure(case, params, **size) for case, params in CASES.items()]
    facts = describe_machine()
    machine = f"{facts['cpu']}, {facts['cores']} cores, one used"
    result = {"machine": machine, **size, "timings": timings}
    if given.json == "-":
        json.dump(result, sys.stdout, indent=1)
        return
    print(f"sampling [{given.rows}, {given.vocab}], {given.calls} calls, {machine}")
    print(columns(("ms per call", "median", "p99", "worst", "cpu"), [list(timing.values()) for timing in timings]))
    write_json(Path(given.json) if given.json else None, result)


if __name__ == "__main__":
    main()
