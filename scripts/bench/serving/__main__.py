"""A load client for LLM servers, with the metrics and names of `vllm bench serve`.

    python -m scripts.bench.serving --config configs/demo.yaml --max-concurrency 8 --num-prompts 100 \\
        --random-input-len 64 --random-output-len 64
    python -m scripts.bench.serving --base-url http://127.0.0.1:8000 --backend openai --request-rate 2
    python -m scripts.bench.serving --config configs/emulated_910b_task1.yaml --dataset-name task1 --request-rate 20

Servers: RingServe or llm-serving (--backend llm-serving), and whatever speaks OpenAI's API (openai, openai-chat):
RingServe, vLLM, llama.cpp. Workloads: the recorded lengths of llm-serving's load (task1, task2), random lengths, or
prompts from a file. An emulated device is always called that; with --time-scale every time that is told is the
device's, and so the host's work counts so many times.
"""

from __future__ import annotations

import argparse
import sys

from scripts.bench.serving.options import parse
from scripts.bench.serving.report import plot, table
from scripts.bench.serving.session import Result, run_session
from scripts.lab.arguments import write_json
from scripts.lab.errors import BenchError
from scripts.lab.processes import exit_when_told
from scripts.tools.check_logits import UnreadableError, check

SHOWN_ERRORS = 10


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0, 1 when requests failed or logits differ, 2 for wrong usage."""
    options = parse(__doc__, arguments)
    exit_when_told()
    try:
        result = run_session(options)
        print(table(options, result.told))
        write_json(options.json, result.told)
        if options.plot:
            plot(result.told, result.answers, options.plot)
        same = _compare_logits(options)
    except (BenchError, UnreadableError) as error:
        print(f"bench_serving: {error}", file=sys.stderr)
        return 1
    return 0 if same and not _tell_failures(result) else 1


def _tell_failures(result: Result) -> bool:
    failures = [answer.error for answer in result.answers if not answer.success]
    for error in failures[:SHOWN_ERRORS]:
        print(f"failed: {error}", file=sys.stderr)
    if len(failures) > SHOWN_ERRORS:
        print(f"… and {len(failures) - SHOWN_ERRORS} more", file=sys.stderr)
    return bool(failures)


def _compare_logits(options: argparse.Namespace) -> bool:
    """Task 2: against the logits of another run, as scripts/tools/check_logits.py does it. Raises UnreadableError."""
    if options.base_logits is None or options.save_logits is None:
        return True
    report = check(options.base_logits, options.save_logits, atol=5e-3)
    report.print()
    return not report.failures


if __name__ == "__main__":
    sys.exit(main())
