"""What holds for all tests: random ones are the same every time, and which may run beside which.

`make test` runs those that look at no clock and can spare a CPU in parallel, then the others one by one.
`make test-fast` runs those of the former that start no server and need neither MindSpore nor a compiler.
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
    "scripts/bench/isolation/test_isolation.py",
    "scripts/bench/serving/test_bench_serving.py",
    "scripts/lab/test_http.py",
    "scripts/lab/test_processes.py",
    "scripts/lab/test_server.py",
    "scripts/bench/test_",
    "scripts/verify",
    "server",
    "test_readme.py",
)
"""Whole servers, clocks, or all CPUs."""

SERVER = (
    "scripts/tools/test_count_path.py",
    "server/test_access.py",
    "server/test_api.py",
    "server/test_clients.py",
    "server/test_demo_server.py",
    "server/test_grammars.py",
    "server/test_logits_files.py",
    "server/test_page.py",
)
"""Of the whole servers those that are asked one thing after the other, whoever else is at work beside them."""

ENGINE = (
    "ipc/test_native.py",
    "ipc/test_sanitized.py",
    "ipc/test_verify.py",
    "model/csrc",
    "model/sampling/test_portability.py",
    "scripts/train",
)
"""A compiler or torch; and with them all that takes the fixtures `in_mindspore` and `in_openvino`."""

# On a fresh clone nothing may fail that did not fail elsewhere. `make explore` looks for more: what it finds becomes
# an explicit example. An example may take as long as it does: who else is at work on the machine is not its fault.
settings.register_profile("same", derandomize=True, database=None, deadline=None)
settings.register_profile("explore", print_blob=True, deadline=None)
settings.load_profile("explore" if "RINGSERVE_EXPLORE" in os.environ else "same")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of a file share what it sets up: they run in one place (`--dist loadfile`)."""
    for item in items:
        file = item.path.relative_to(ROOT).as_posix()
        in_engine = not {"in_mindspore", "in_openvino"}.isdisjoint(getattr(item, "fixturenames", ()))
        if file.startswith(SERVER):
            item.add_marker(pytest.mark.server)
        elif file.startswith(SERIAL):
            item.add_marker(pytest.mark.serial)
        elif in_engine or file.startswith(ENGINE):
            item.add_marker(pytest.mark.engine)
