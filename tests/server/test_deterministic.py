"""A whole server with a real engine, whose numbers depend on the shape of a step. Texts and log-probabilities are
compared: whatever is rounded otherwise is seen in these, long before a text changes."""

from __future__ import annotations

import concurrent.futures
import os
import signal

import httpx
import pytest

from model.demo import DEMO_DIR
from scripts.lab.server import launched
from tests.server.launched import wait_until

OPTIONS = (
    "pipeline.runner.kind=mindspore",
    "pipeline.max_rows=4",
    "pipeline.token_budget=64",
    "pa_config.num_blocks=16",  # for two of the sequences
    "pipeline.speculation.method=ngram",
)
BODIES = [
    {"prompt": [number, *[9, 8, 7, 6] * 8, *range(5, 5 + 9 * number)], "max_tokens": 60, "ignore_eos": True, **chosen}
    for number in range(1, 4)
    for chosen in ({"temperature": 0}, {"temperature": 0.8, "seed": number})
]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with launched(DEMO_DIR, OPTIONS, tmp_path_factory.mktemp("deterministic") / "log") as running:
        yield running


def ask(server, body, *, deterministic=True):
    asked = {**body, "deterministic": deterministic, "logprobs": 0}
    answer = httpx.post(f"{server.base_url}/v1/completions", json=asked, timeout=120)
    assert answer.status_code == 200, answer.text
    (choice,) = answer.json()["choices"]
    return choice["text"], choice["logprobs"]["token_logprobs"]


def test_the_same_texts_alone_cached_in_company_preempted_and_resumed(server):
    alone = [ask(server, body) for body in BODIES]
    assert ask(server, BODIES[0], deterministic=False) != alone[0]  # in steps of one token: it can be seen
    assert [ask(server, body) for body in BODIES] == alone  # their prompts are cached
    assert server.metrics().total("prefix_cache_hits_total") > 0
    with concurrent.futures.ThreadPoolExecutor(2 * len(BODIES)) as pool:
        others = [pool.submit(ask, server, {**body, "max_tokens": 20}, deterministic=False) for body in BODIES]
        asked = [pool.submit(ask, server, body) for body in BODIES]
        wait_until(lambda: server.metrics().total("num_preemptions_total") > 0, server.log_text, 60)
        os.kill(server.stages()["inference"], signal.SIGKILL)
        assert [one.result(120) for one in asked] == alone
        assert all(one.result(120) for one in others)
    assert server.metrics().total("requests_resumed_total") > 0
