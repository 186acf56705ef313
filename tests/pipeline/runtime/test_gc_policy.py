"""The step path leaves no cycles behind, so that inference and sampling can do without the collector."""

from __future__ import annotations

import gc
import subprocess
import sys
import textwrap

from model.sampling import SamplingParams
from pipeline.wire.request import Request
from pipeline.wire.topology import ROLES
from tests.pipeline.stages import Server

ROUNDS = 5
REQUESTS = 24


def params(number):
    """Every kind of request, one after the other."""
    sampling = SamplingParams(
        temperature=(0, 0.7, 1.0)[number % 3],
        top_k=(0, 5)[number % 2],
        seed=number,
        logprobs=2 if number % 3 == 0 else None,
        repetition_penalty=1.1 if number % 5 == 0 else 1.0,
    )
    return Request(sampling, max_tokens=10 + number, stop=("zz", "abc") if number % 4 == 0 else ())


def run(server, first):
    """Requests come, are preempted, cancelled, end."""
    for number in range(REQUESTS):
        server.submit(first + number, f"prompt {number}", params(number))
    for _ in range(10):
        server.turn()
    server.cancel(first + REQUESTS - 1)
    server.run()
    assert len(server.told) >= REQUESTS - 1
    for heard in (server.told, server.answers, server.started, server.submitted):
        heard.clear()


def test_steps_requests_and_their_ends_leave_no_cycles(tokenizer_file):
    server = Server(tokenizer_file, rows=4, blocks=20, block_size=4, max_length=64)
    run(server, 1)
    gc.collect()
    gc.disable()
    try:
        for number in range(1, ROUNDS):
            run(server, 1000 * number)
        assert server.scheduler.stats.preemptions > 0 < server.scheduler.stats.cancelled
        assert gc.collect() == 0
    finally:
        gc.enable()
        server.close()


def test_quiet_stages_do_not_collect_and_others_do():
    code = """
        import gc
        from pipeline.runtime.gc_policy import freeze_gc
        from pipeline.wire.topology import ROLES
        freeze_gc(ROLES[{index}])
        print(gc.isenabled(), gc.get_freeze_count() > 1000)
    """
    quiet = {"inference", "sampling"}
    for index, role in enumerate(ROLES):
        command = [sys.executable, "-c", textwrap.dedent(code.format(index=index))]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.split() == [str(role.name not in quiet), "True"], role
