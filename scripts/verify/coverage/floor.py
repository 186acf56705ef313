"""How much of each module the tests of `make test`'s parallel part must reach, and what they need not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

FLOOR_PERCENT = 80.0

EXCEPTIONS: Mapping[str, str] = {
    "model/mindspore_common/cluster.py": "the rest is for Ascend devices, or MindSpore's scheduler (make test-mccl)",
    "model/mindformers_runner/plain_attention.py": "MindSpore compiles what construct() calls; Python never runs it",
    "pipeline/ray/application.py": "needs Ray, which has an environment of its own (make test-scale)",
    "pipeline/ray/__main__.py": "likewise (make serve-ray)",
    "pipeline/ray/local.py": "likewise (both)",
}
"""Module → why tests can't reach most of it in a process of this host."""


def complaints(percent: Mapping[str, float], exceptions: Mapping[str, str]) -> Iterator[str]:
    for name, value in sorted(percent.items()):
        if value < FLOOR_PERCENT and name not in exceptions:
            yield f"{name}: tests reach {value:.0f} % of its statements; at least {FLOOR_PERCENT:g} % are wanted"
        elif value >= FLOOR_PERCENT and name in exceptions:
            yield f"{name}: tests reach {value:.0f} %: it needs no exception any more"
    for name in sorted(exceptions.keys() - percent.keys()):
        yield f"{name}: is an exception, but not in the report"
