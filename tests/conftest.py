"""What holds for all tests: random ones are the same every time, and which may run beside which.

`make test` runs those that start no server and look at no clock in parallel, then the others one by one.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).parent

SERIAL = (
    "ipc/test_cost.py",
    "ipc/test_peers.py",
    "ipc/test_verify.py",
    "model/emulated",
    "model/test_memory.py",
    "pipeline/test_",
    "scripts/test_",
    "scripts/serving_bench/test_bench_serving.py",
    "scripts/serving_bench/test_http.py",
    "scripts/serving_bench/test_processes.py",
    "test_readme.py",
)
"""Whole servers, clocks, or all CPUs; but for those below."""

PARALLEL = (
    "pipeline/test_api_keys.py",
    "pipeline/test_config.py",
    "pipeline/test_control.py",
    "pipeline/test_resumption.py",
    "pipeline/test_scheduler.py",
    "pipeline/test_stages.py",
    "pipeline/test_stats.py",
    "pipeline/test_tenant.py",
    "pipeline/test_wiring.py",
    "scripts/test_demo_training.py",
    "scripts/test_make_dashboard.py",
)

# On a fresh clone nothing may fail that did not fail elsewhere. `make explore` looks for more: what it finds becomes
# an explicit example.
settings.register_profile("same", derandomize=True, database=None)
settings.register_profile("explore", print_blob=True)
settings.load_profile("explore" if "RINGSERVE_EXPLORE" in os.environ else "same")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of a file share what it sets up, and those that need MindSpore its process: they run in one place."""
    for item in items:
        file = item.path.relative_to(ROOT).as_posix()
        if file.startswith(SERIAL) and not file.startswith(PARALLEL):
            item.add_marker(pytest.mark.serial)
        shared = "mindspore" if "in_mindspore" in getattr(item, "fixturenames", ()) else file
        item.add_marker(pytest.mark.xdist_group(shared))
