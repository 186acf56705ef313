"""A replica of two ranks: they are one stage, whichever of them dies or stands still."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import httpx
import pytest

from model.demo import DEMO_DIR
from scripts.lab.server import launched
from tests.server.supervised import Load, Supervised

LONG_S = 240.0  # nothing is asserted to be fast: this only ends a hang
RANKS = ("inference 0.0", "inference 0.1")
GOLDEN = [json.loads(line) for line in (Path(DEMO_DIR) / "golden.jsonl").read_text().splitlines()]
SMALL = (
    "pipeline.model_name=ringserve-demo",
    "model_config.decode_batch_size=1",
    "pipeline.token_budget=8",
    "pa_config.num_blocks=64",
)


@pytest.fixture(scope="module")
def emulated(tmp_path_factory):
    slow = "pipeline.runner.cost_model.fixed_ms=5"
    ranks = "serving_config.agent_ports=[16002, 16003]"  # as llm-serving's configurations say it
    server = Supervised(tmp_path_factory.mktemp("ranks"), ("pipeline.hang_timeout_s=1.5", slow, ranks))
    yield server
    server.stop()


@pytest.mark.parametrize("victim", RANKS)
def test_one_that_is_killed_takes_the_others_with_it(emulated, victim):
    load = Load(emulated)
    before = emulated.kill(victim)
    load.stop()
    after = emulated.stages()
    assert {name for name in before if before[name] != after[name]} == set(RANKS)
    assert f"{victim} (pid {before[victim]}) was killed by SIGKILL; restarting it" in emulated.text_said
    assert load.statuses.count(200) > 0
    emulated.serves()
    for rank in "01":
        assert emulated.metric("ringserve_restarts_total", stage="inference", rank=rank) == RANKS.index(victim) + 1


def test_one_that_stands_still_takes_the_others_with_it(emulated):
    load = Load(emulated)
    recoveries = emulated.recoveries
    before = emulated.signal(signal.SIGSTOP, RANKS[1])
    line = emulated.log(f"{RANKS[1]} (pid {before[RANKS[1]]}) hangs")
    assert "stopped (SIGSTOP)" in line
    emulated.recover(recoveries)
    load.stop()
    after = emulated.stages()
    assert {name for name in before if before[name] != after[name]} == set(RANKS)
    emulated.serves()


def test_a_model_in_two_parts_goes_on_where_it_was(tmp_path):
    """The shipped model, by MindSpore; the golden answers were made by transformers from the same weights. A rank is
    killed in the middle of a stream."""
    entry, other = sorted(GOLDEN, key=lambda entry: len(entry["answer"]))[-2:]
    kept = f"pipeline.runner.compile_cache={tmp_path / 'compiled'}"
    overrides = ("pipeline.ranks=2", "pipeline.runner.kind=mindspore", kept, *SMALL)
    with launched(Path(DEMO_DIR), overrides, tmp_path / "log", timeout_s=LONG_S) as server:
        assert set(RANKS) < set(server.stages())
        assert "on 2 ranks" in server.log_text()
        killed = []

        def kill(number: int) -> None:
            if number == 12:
                killed.append(server.stages()[RANKS[1]])
                os.kill(killed[0], signal.SIGKILL)

        assert complete(server, entry, kill) == entry["answer"].strip()
        assert killed
        assert server.metrics().total("requests_resumed_total") == 1
        assert server.restarts() == 2
        require_ranks_stay(server, other)
        assert server.stop() == 0, server.log_text()
        assert "Traceback" not in server.log_text()


def require_ranks_stay(server, entry):
    """Wherever they are when their rings end: other stages are killed at several places of a stream."""
    before, killed = server.stages(), []

    def kill(number: int) -> None:
        if number in {6, 14, 22}:
            killed.append(("preprocess", "sampling")[len(killed) % 2])
            while killed[-1] not in (now := server.stages()):  # tokens came meanwhile that were under way before
                time.sleep(0.01)
            os.kill(now[killed[-1]], signal.SIGKILL)

    assert complete(server, entry, kill) == entry["answer"].strip()
    assert len(killed) == 3
    after = server.stages()
    assert {name for name in after if after[name] != before[name]} == {"preprocess", "sampling"}


def complete(server, entry, each=lambda number: None):
    """The text of a stream; `each` is called with the number of every event."""
    options = {"max_tokens": 120, "temperature": 0, "stream": True}
    body, texts = {"model": "ringserve-demo", "prompt": entry["prompt_ids"], **options}, []
    with httpx.stream("POST", f"{server.base_url}/v1/completions", json=body, timeout=LONG_S) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                texts.append(json.loads(line.removeprefix("data: "))["choices"][0]["text"])
                each(len(texts))
    return "".join(texts).strip()
