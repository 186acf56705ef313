"""Scores of prompts from whole servers: those of an independent decoder, and, though a stage dies meanwhile, all of
them, once."""

from __future__ import annotations

import concurrent.futures

import httpx
import numpy as np
import pytest

from model.emulated import expected_logits
from tests.server.launched import wait_until

SLOW = ("pipeline.runner.cost_model.fixed_ms=25",)
PROMPT = [300 + 7 * i % 1700 for i in range(390)]  # seven steps
ASKED = {"max_tokens": 4, "temperature": 0, "echo": True, "logprobs": 3}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    from tests.server.supervised import Supervised

    server = Supervised(tmp_path_factory.mktemp("scores"), SLOW)
    yield server
    server.stop()


def ask(server, prompt, **asked):
    """Over a connection of its own."""
    return httpx.post(server.base + "/v1/completions", json={"prompt": prompt, **ASKED, **asked}, timeout=60)


def expected(server, prompt):
    """By the device's definition, in double precision; of token ids and of their names."""
    for position in range(1, len(prompt)):
        logits = expected_logits(prompt[:position], server.runner.settings).astype(np.float64)
        yield (logits - np.logaddexp.reduce(logits))[prompt[position]]


def check(server, answer, prompt):
    assert answer.status_code == 200, answer.text
    (choice,) = answer.json()["choices"]
    logprobs = choice["logprobs"]
    count = len(prompt)
    assert logprobs["token_logprobs"][0] is None
    np.testing.assert_allclose(logprobs["token_logprobs"][1:count], list(expected(server, prompt)), atol=1e-5)
    assert [len(column) for column in logprobs.values()] == [count + 4] * 4
    assert logprobs["tokens"] == [server.tokenizer.token_text(one) for one in (*prompt, *server.expected(prompt, 4))]


@pytest.mark.parametrize("stage", ["inference", "preprocess", "sampling"])
def test_a_stage_dies_in_the_middle_of_a_prompt(server, stage):
    before = server.metric("ringserve_scored_tokens_total")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask, server, PROMPT)
        wait_until(lambda: server.metric("ringserve_scored_tokens_total") > before, lambda: server.text_said)
        server.kill(stage)
        check(server, answer.result(60), PROMPT)
    assert server.metric("ringserve_requests_resumed_total") >= 1


def test_other_requests_are_served_meanwhile_and_nothing_is_held(server):
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        scored = [pool.submit(ask, server, PROMPT[i:]) for i in range(3)]
        others = [pool.submit(server.serves, f"question {i}") for i in range(3)]
        for i, answer in enumerate(scored):
            check(server, answer.result(60), PROMPT[i:])
        for other in others:
            other.result(60)
    wait_until(lambda: server.metric("ringserve_kv_blocks_used") == 0, "blocks are held")


def test_a_client_that_goes_away_leaves_nothing(server):
    with pytest.raises(httpx.TimeoutException):
        httpx.post(server.base + "/v1/completions", json={"prompt": PROMPT, **ASKED}, timeout=0.05)
    wait_until(lambda: server.metric("ringserve_requests_in_flight") == 0, "it is still served")
    wait_until(lambda: server.metric("ringserve_kv_blocks_used") == 0, "blocks are held")
    server.serves()
