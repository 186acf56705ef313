"""What holds for all tests: random ones are the same every time, and which may run beside which.

`make test` runs those that look at no clock and can spare a CPU in parallel, then servers that must survive
something, four at a time, then the others one by one. `make test-fast` runs those of the first that start no server
and need neither MindSpore nor a compiler.
"""

from __future__ import annotations

import functools
import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

from tests.examples import EXPLORING

ROOT = Path(__file__).parent

SERIAL = (
    "ipc/test_cost.py",
    "ipc/test_peers.py",
    "scripts/bench/isolation/test_isolation.py",
    "scripts/lab/test_http.py",
    "scripts/lab/test_processes.py",
    "scripts/bench/test_",
    "scripts/verify/test_",
    "server",
)
"""Clocks, or all CPUs."""

SURVIVAL = (
    "scripts/bench/test_overhead.py",
    "server/test_supervision.py",
    "server/test_end.py",
    "server/test_starvation.py",
    "scripts/verify/test_chaos.py",
    "server/test_ranks.py",
    "server/test_server.py",
    "server/test_poison.py",
    "scripts/verify/test_fuzz.py",
    "scripts/verify/test_soak.py",
    "server/test_links.py",
    "scripts/bench/test_peers.py",
    "scripts/bench/serving/test_bench_serving.py",
    "scripts/bench/test_ipc.py",
    "server/test_weights.py",
    "server/test_deterministic.py",
    "server/test_bounded.py",
    "server/test_haproxy.py",
    "server/test_replicas.py",
    "server/test_operations.py",
    "server/test_early_ready.py",
    "server/test_readiness.py",
    "scripts/bench/test_speculation.py",
    "scripts/verify/test_flips.py",
    "test_readme.py",
    "server/test_tracing.py",
    "scripts/lab/test_server.py",
    "server/test_kept.py",
    "server/test_scores.py",
    "server/test_metrics.py",
)
"""Whole servers that are killed, starved, drained or measured: they wait more than they compute, and must come
through beside other work, too. What takes longest comes first, so that no process is left with it at the end."""

SERVER = (
    "scripts/tools/test_count_path.py",
    "server/test_access.py",
    "server/test_adapters.py",
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

# What tests compile is kept between them, and not in the user's own cache.
os.environ["XDG_CACHE_HOME"] = str(ROOT.parent / ".cache" / "tests")

# Clients talk to this machine: to read the certificates of the whole world would take each of them 50 ms.
os.environ.pop("SSL_CERT_FILE", None)
os.environ["SSL_CERT_DIR"] = str(ROOT)

# A shell lets what it runs in the background ignore Ctrl-C, and servers inherit that, which tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# On a fresh clone nothing may fail that did not fail elsewhere: what `make explore` finds becomes an example.
# An example may take as long as it does: who else is at work on the machine is not its fault.
settings.register_profile("same", max_examples=34, derandomize=True, database=None, deadline=None)
settings.register_profile("explore", print_blob=True, deadline=None)
settings.load_profile("explore" if EXPLORING else "same")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With `-m survival` and `-m serial` only files that have such tests are imported: the others take longer to
    import than many of these to run."""
    wanted = config.option.markexpr
    if wanted not in ("survival", "serial") or not collection_path.match("test_*.py"):
        return None
    has_some = _marker(collection_path) == wanted or f"mark.{wanted}" in collection_path.read_text(encoding="utf-8")
    return None if has_some else True


@functools.cache  # for each of a file's tests
def _file_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@functools.cache
def _marker(path: Path) -> str | None:
    """That all tests of a file have because of where it lies."""
    file = _file_of(path)
    places = {"server": SERVER, "survival": SURVIVAL, "serial": SERIAL, "engine": ENGINE}
    return next((marker for marker, starts in places.items() if file.startswith(starts)), None)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests of a file share what it sets up: they run in one place (`--dist loadfile`). What takes long begins."""
    for item in items:
        in_engine = not {"in_mindspore", "in_openvino"}.isdisjoint(getattr(item, "fixturenames", ()))
        if marker := _marker(item.path) or ("engine" if in_engine else None):
            item.add_marker(marker)
    if "mccl" not in config.option.markexpr:
        items[:] = [item for item in items if not item.get_closest_marker("mccl")]
    long = {item.path for item in items if any(map(item.get_closest_marker, ("server", "engine")))}
    places = {file: place for place, file in enumerate(SURVIVAL)}
    items.sort(key=lambda item: (item.path not in long, places.get(_file_of(item.path), len(places))))
