"""Which modules the tests of `make test`'s parallel part reach too little of:
``python -m scripts.verify.coverage_floor REPORT``, with the report of ``pytest --cov --cov-report=json:REPORT``.

Status 1 when a module is below the floor, or an exception has become needless.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

FLOOR_PERCENT = 80.0

EXCEPTIONS: Mapping[str, str] = {
    "model/mindspore_common/cluster.py": "the rest is for Ascend devices, or MindSpore's scheduler (make test-mccl)",
    "model/mindformers_runner/plain_attention.py": "MindSpore compiles what construct() calls; Python never runs it",
    "pipeline/ray/application.py": "needs Ray, which has an environment of its own (make test-scale)",
    "pipeline/ray/__main__.py": "likewise (make serve-ray)",
    "pipeline/ray/local.py": "likewise (both)",
}
"""Module → why tests can't reach most of it in a process of this host."""


def covered(report: str) -> dict[str, float]:
    """Percent of each module's lines; those without any are left out."""
    files = json.loads(report)["files"]
    summaries = {name: values["summary"] for name, values in files.items()}
    return {name: summary["percent_covered"] for name, summary in summaries.items() if summary["num_statements"]}


def complaints(percent: Mapping[str, float], exceptions: Mapping[str, str]) -> Iterator[str]:
    for name, value in sorted(percent.items()):
        if value < FLOOR_PERCENT and name not in exceptions:
            yield f"{name}: tests reach {value:.0f} % of its lines; at least {FLOOR_PERCENT:g} % are wanted"
        elif value >= FLOOR_PERCENT and name in exceptions:
            yield f"{name}: tests reach {value:.0f} %: it needs no exception any more"
    for name in sorted(exceptions.keys() - percent.keys()):
        yield f"{name}: is an exception, but not in the report"


def main() -> int:
    percent = covered(Path(sys.argv[1]).read_text(encoding="utf-8"))
    found = list(complaints(percent, EXCEPTIONS))
    for line in found:
        print(line)
    if not found:
        lowest = min(percent.keys() - EXCEPTIONS.keys(), key=lambda name: percent[name])
        print(f"{len(percent)} modules, {len(EXCEPTIONS)} exceptions; least: {lowest}, {percent[lowest]:.0f} %")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
