"""The SPIN model of the ring protocol: it holds, and every broken protocol is caught."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from scripts.verify import rings

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def tools() -> None:
    missing = rings.missing_tools()
    if missing and os.environ.get("CI") == "true":
        pytest.fail(f"{' and '.join(missing)} not found, and CI must verify the model")
    if missing:
        pytest.skip(f"{' and '.join(missing)} not found")


RUNS = [run for run in (*rings.PROTOCOL, *rings.BROKEN) if not run.slow]


@pytest.fixture(scope="module")
def verifying(request: pytest.FixtureRequest, tools: None) -> Iterator[dict[str, Future[Any]]]:
    """All runs that are wanted, on every core at once: each is a search on one."""
    wanted = [item.callspec.params["run"] for item in request.session.items if _is_run(item)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield {run.name: pool.submit(rings.verify, run) for run in wanted}
        pool.shutdown(cancel_futures=True)


def _is_run(item: pytest.Item) -> bool:
    return isinstance(item, pytest.Function) and item.function is test_run


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name.replace(" ", "-"))
def test_run(run: Any, verifying: dict[str, Future[Any]]) -> None:
    assert verifying[run.name].result().result == run.expected


def test_what_takes_too_long_here_was_verified_with_this_model() -> None:
    recorded = json.loads(rings.RECORD.read_text())
    assert recorded == rings.record_of((*rings.PROTOCOL, *rings.BROKEN)), "run make verify, and commit its record"


def test_an_unfinished_search_is_no_proof() -> None:
    assert rings.judge("State-vector 76 byte, depth reached 9, errors: 0") == rings.HOLDS
    assert rings.judge("pan: reached -DMEMLIM bound\nWarning: Search not completed\nerrors: 0") == rings.INCOMPLETE
    assert rings.judge("error: max search depth too small\n, errors: 0") == rings.INCOMPLETE
    assert rings.judge("") == rings.INCOMPLETE


def test_every_step_of_the_model_is_a_line_of_the_code() -> None:
    model = rings.MODEL.read_text()
    code = (ROOT / "ipc/core/ring_protocol.h").read_text()
    label = re.compile(r"\[([PWSRECLV]\d)\]")
    assert set(label.findall(model)) == set(label.findall(code))
