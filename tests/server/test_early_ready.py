"""A whole server that is ready when two buckets are compiled, on a device that takes its time to compile."""

from __future__ import annotations

import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor

from tests.server.launched import Launched, wait_until

BUCKETS = 8  # of 8 rows and 64 tokens, one of them for scores
PROMPT, COUNT = "one two three four five six seven eight nine ten " * 8, 150


def compiled(server):
    """How many, as /ready says."""
    body = server.client.get("/ready").json()
    if body == {"status": "ready"}:
        return BUCKETS
    found = re.fullmatch(rf"compiled (\d) of {BUCKETS}", body.get("progress", ""))
    return int(found[1]) if found else 0


def times_compiled(server):
    return server.text_said.count(" inference  INFO    compiled ")


def test_it_serves_while_it_compiles_and_again_after_a_kill(tmp_path):
    server = Launched(tmp_path, ["pipeline.runner.compile_s=0.7"])
    try:
        assert f"compiled 2 of {BUCKETS} buckets; the others follow while it serves" in server.text_said
        assert 2 <= compiled(server) < BUCKETS
        assert server.metric("ringserve_buckets") == BUCKETS
        with ThreadPoolExecutor(3) as pool:
            answers = [pool.submit(server.generate, PROMPT, COUNT) for _ in range(3)]
            wait_until(lambda: server.metric("ringserve_steps_total", stage="inference") > 5, server.text_said)
            assert compiled(server) < BUCKETS
            os.kill(server.stages()["inference"], signal.SIGKILL)
            texts = [answer.result(60).json()["generated_text"] for answer in answers]
        assert texts == [server.text(PROMPT, COUNT)] * 3
        before = times_compiled(server)
        wait_until(lambda: compiled(server) == BUCKETS, lambda: server.text_said, 60)
        assert times_compiled(server) > before
        assert server.metric("ringserve_buckets_compiled") == BUCKETS
        assert server.metric("ringserve_restarts_total", stage="inference") == 1
        assert server.generate(PROMPT, COUNT).json()["generated_text"] == server.text(PROMPT, COUNT)
        assert server.end() == 0
    finally:
        server.stop()


def test_all_before_it_is_ready(tmp_path):
    server = Launched(tmp_path, ["pipeline.runner.compile_s=0.01", "pipeline.runner.warm_up=all"])
    try:
        assert server.client.get("/ready").json() == {"status": "ready"}
        assert server.metric("ringserve_buckets_compiled") == BUCKETS
        assert "the others follow" not in server.text_said
        assert times_compiled(server) == 0
    finally:
        server.stop()
