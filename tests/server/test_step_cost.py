"""A null check on the step path: what a step costs grows neither with its rows nor with their context.

System calls are counted from outside, of real processes under load; Python's memory from inside, stage by stage.
Times are not looked at. Not covered: what sampling uses per row once the tokens are out (a record for each).
"""

from __future__ import annotations

import concurrent.futures
import gc
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc

import pytest

from model.sampling import SamplingParams
from pipeline.wire.request import Request
from tests.pipeline.stages import Server, write_byte_tokenizer
from tests.server.launched import Launched

STEPS = 1000
FEW, MANY = 2, 16

needs_strace = pytest.mark.skipif(
    shutil.which("strace") is None and os.environ.get("CI") != "true", reason="strace is not installed"
)


# ---- system calls ------------------------------------------------------------------------------------------------

TRACED = 400  # steps whose system calls are counted
TOKENS, LENGTH = 2000, 2096  # of an answer, and with its prompt

LONG = (
    f"model_config.max_generate_length={LENGTH}",
    f"model_config.seq_length={LENGTH - 48}",
    f"model_config.decode_batch_size={MANY}",
    f"pa_config.num_blocks={MANY * LENGTH // 16 + 1}",
)
CALLS_PER_STEP = 16
"""A wait and a wake-up on each ring, the emulated device's two, and half as many again for waits that end in vain."""


class Strace:
    """Counts the system calls of a process while it is attached."""

    def __init__(self, pid, file):
        self._file = file
        command = ["strace", "-c", "-f", "-p", str(pid), "-o", str(file)]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        said = self._process.stderr.readline()
        if "attached" not in said:
            self._process.wait()
            pytest.skip(f"strace may not attach here: {said.strip()}")

    def count(self):
        self._process.send_signal(signal.SIGINT)
        self._process.communicate(timeout=20)
        summary = self._file.read_text()
        total = re.search(r"^100\.00\s+\S+\s+(?:\d+\s+)?(\d+)\s+(?:\d+\s+)?total$", summary, re.MULTILINE)
        assert total, summary
        return int(total[1])


def wait_for_step(server, step):
    deadline = time.monotonic() + 60
    while (now := server.metric("ringserve_steps_total", stage="sampling")) < step:
        assert time.monotonic() < deadline, f"step {now} of {step}"
        time.sleep(0.05)
    return now


def calls_per_step(server, steps, directory):
    """By stage, over at least so many steps from now on."""
    pids = server.stages()
    traces = {stage: Strace(pids[stage], directory / stage) for stage in ("inference", "sampling")}
    first = wait_for_step(server, 0)
    last = wait_for_step(server, first + steps)
    return {stage: trace.count() / (last - first) for stage, trace in traces.items()}


def measure_calls(server, rows, directory):
    """With short and with long contexts: of the same requests, at their beginning and near their end."""
    begun = wait_for_step(server, 0)
    with concurrent.futures.ThreadPoolExecutor(rows) as pool:
        answers = [pool.submit(server.generate, f"row {i}", TOKENS, ignore_eos=True) for i in range(rows)]
        wait_for_step(server, begun + 100)
        short = calls_per_step(server, TRACED, directory)
        wait_for_step(server, begun + TOKENS - 2 * TRACED)
        long = calls_per_step(server, TRACED, directory)
        assert server.metric("ringserve_num_requests_running") == rows  # all of them, all the time
        assert all(answer.result().status_code == 200 for answer in answers)
    return short, long


@needs_strace
@pytest.mark.parametrize("sampled", [False, True], ids=["greedy", "sampled"])
def test_system_calls_of_a_step_do_not_grow_with_rows_or_context(tmp_path, sampled):
    server = Launched(tmp_path, LONG)
    ask = server.generate
    if sampled:
        server.generate = lambda *a, **k: ask(*a, **k, do_sample=True, temperature=0.7, top_k=20, seed=1)
    try:
        few = measure_calls(server, FEW, tmp_path)
        many = measure_calls(server, MANY, tmp_path)
    finally:
        server.stop()
    for stage in ("inference", "sampling"):
        figures = [window[stage] for window in (*few, *many)]
        assert max(figures) < CALLS_PER_STEP, (stage, figures)
        # One call per row would add 14; the rest is how often a wait finds its data only after it fell asleep
        assert max(figures) - min(figures) < (MANY - FEW) / 2, (stage, figures)


# ---- memory ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory):
    return write_byte_tokenizer(tmp_path_factory.mktemp("tokenizer"))


PARAMS = {
    "greedy": SamplingParams(temperature=0.0),
    "log-probabilities": SamplingParams(temperature=0.0, logprobs=0),
    "sampled": SamplingParams(temperature=0.8, top_k=10, seed=3),
}


class Meter:
    """What stages keep and what they use meanwhile, over many steps of a full batch."""

    def __init__(self, server):
        self._server = server
        self.kept = {"inference": 0, "sampling": 0}  # blocks of Python's allocator, in all
        self._used = {"inference": [], "sampling": []}  # bytes at a time, by step; of sampling until tokens are out
        publish = server.sampling._publish_results

        def note_before(*arguments):
            self._note("sampling")
            return publish(*arguments)

        server.sampling._publish_results = note_before

    def run(self, steps):
        server = self._server
        for _ in range(steps):
            server.plan()
            self._measure("inference", server.inference.run_step)
            self._measure("sampling", server.sampling.run_step)
            server.preprocess.take_results()
            server.listen()
            server.told.clear()

    def _measure(self, stage, step):
        if tracemalloc.is_tracing():
            tracemalloc.reset_peak()
            self._before = tracemalloc.get_traced_memory()[0]
            step()
            if stage == "inference":
                self._note(stage)
        else:
            before = sys.getallocatedblocks()
            step()
            self.kept[stage] += sys.getallocatedblocks() - before - 1  # `before` is one itself

    def _note(self, stage):
        if tracemalloc.is_tracing():
            peak = tracemalloc.get_traced_memory()[1]
            self._used[stage].append(peak - self._before)

    def used(self, stage):
        """Of the worst steps but one in ten: what other threads of this process allocate is counted, too."""
        used = sorted(self._used[stage])
        return used[len(used) * 9 // 10]


def measure_memory(tokenizer_file, rows, sampling, context):
    """Of steps around this context; the batch is full and stays so."""
    server = Server(tokenizer_file, rows=MANY, budget=256, blocks=8192, block_size=16, max_length=8192)
    try:
        params = Request(sampling, max_tokens=2 * STEPS + 500, ignore_eos=True)
        for request in range(rows):
            server.submit(request, [1 + request] * context, params)
            server.preprocess.take_request()  # the ring has no room for all
        while server.pool.requests or server.scheduler.waiting or server.scheduler.prefilling:
            server.turn()
        while server.inference.steps_done > server.sampling.steps_done:
            server.sample()
        server.preprocess.take_results()
        assert server.scheduler.running == rows
        meter = Meter(server)
        meter.run(STEPS // 5)
        meter.kept = dict.fromkeys(meter.kept, 0)
        meter.run(STEPS)
        tracemalloc.start()
        try:
            meter.run(50)
        finally:
            tracemalloc.stop()
        assert server.scheduler.running == rows
        return meter
    finally:
        server.close()


@pytest.fixture
def uncollected():
    """As in the stages, where nothing is collected while they work: what others left behind would be counted."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("sampling", PARAMS.values(), ids=PARAMS)
def test_memory_of_a_step_does_not_grow_with_rows_or_context(tokenizer_file, sampling):
    meters = {
        (rows, context): measure_memory(tokenizer_file, rows, sampling, context)
        for rows in (FEW, MANY)
        for context in (16, 4000)
    }
    figures = {
        where: (meter.kept, meter.used("inference"), meter.used("sampling")) for where, meter in meters.items()
    }
    for stage in ("inference", "sampling"):
        kept = [meter.kept[stage] for meter in meters.values()]
        # One per row would be 16 a step. A float may go to Python's free list in one stage and come back in another
        assert max(map(abs, kept)) < 2 * STEPS, figures
        used = [meter.used(stage) for meter in meters.values()]
        # Four lists of pointers, of what a stage looks at row by row; but no object of 28 bytes or more for each
        assert max(used) - min(used) < (MANY - FEW) * (4 * 8 + 16), figures
