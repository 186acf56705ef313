"""The first token of an idle server: what it waits for beside tokenizing and the prefill step, and how much of that
a server that does nothing but speak HTTP needs, too."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from model.tokenizer import load_tokenizer
from pipeline.config import load_configuration
from scripts.bench.overhead.bare_http import serve_bare_http
from scripts.bench.overhead.client import Question, Streams, prompt, serve_client
from scripts.bench.overhead.device import Device, serve_bare_steps
from scripts.bench.overhead.figures import Goal
from scripts.bench.overhead.measure import Say
from scripts.bench.overhead.servers import ringserve
from scripts.bench.overhead.tables import Row
from scripts.bench.overhead.workers import ask, worker

GOAL_MS = 1.5
STEP_MS = 22.5
_IDLE_S = 0.1  # on an open connection, before each request: everybody sleeps


def measure_ttft(requests: int, directory: Path, say: Say) -> Row:
    """One request at a time. Raises StreamError, ServerError."""
    device = Device(STEP_MS)
    file = device.write(directory / "ttft.yaml", 1)
    vocabulary = load_configuration(file).tokenizer.vocab_file
    assert vocabulary is not None
    tokenizer = load_tokenizer(vocabulary)
    say(f"time to the first token of an idle server: {requests} requests")
    ttft_ms: list[float] = []
    encode_ms: list[float] = []
    http_ms: list[float] = []
    with (
        worker(serve_client) as client,
        worker(serve_bare_steps, file) as bare,
        worker(serve_bare_http) as http,
        ringserve(file) as server,
    ):
        step_ms = float(np.median(ask(bare, (1, 20, True)))) / 1e6
        http_port = ask(http, "port")
        for number in range(requests + 3):
            begun = time.perf_counter_ns()
            tokenizer.encode(prompt(0))
            encode_ms.append((time.perf_counter_ns() - begun) / 1e6)
            for port, times in ((server.port, ttft_ms), (http_port, http_ms)):
                streams: Streams = ask(client, Question(port, "llm-serving", 1, 2, settle_s=_IDLE_S))
                if number >= 3:  # the first ones warm up
                    times.append(float(streams.times_ns[0, 0] - streams.sent_ns[0]) / 1e6)
    encoding = float(np.median(encode_ms))
    over = np.array(ttft_ms) - encoding - step_ms
    p50, p99 = np.percentile(over, [50, 99])
    row = {
        "requests": requests,
        "ttft_p50_ms": round(float(np.median(ttft_ms)), 3),
        "step_ms": round(step_ms, 3),
        "tokenizing_ms": round(encoding, 3),
        "bare_http_p50_ms": round(float(np.median(http_ms)), 3),
        "overhead_p50_ms": round(float(p50), 3),
        "overhead_p99_ms": round(float(p99), 3),
    }
    goal = Goal(
        "time to the first token beside tokenizing and the step, median", row["overhead_p50_ms"], GOAL_MS, "ms"
    )
    title = (
        f"Time to the first token of an idle server, at an HTTP client with an open connection; device {device.name}"
    )
    return {"title": title, "results": [row], "goals": [goal.told()]}
