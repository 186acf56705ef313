"""Requests to a real server: clients that ask again at once, and conversations that go on for a while."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import uvloop

from scripts.bench.routing.requests import Asked, Load
from scripts.bench.serving.workload import Lengths, recorded_lengths
from scripts.lab.errors import BenchError
from scripts.lab.http import Client, Reply, Watch
from scripts.lab.server import Server

_FIRST_ID, _IDS = 300, 1700  # that have text in the demo's tokenizer
WARM_S = 5.0
"""Until all rows are full, and prompts and ends are spread over the steps."""


def request(client: Client, prompt: Sequence[int], tokens: int) -> bytes:
    body = {"prompt": prompt, "max_tokens": tokens, "stream": True, "temperature": 0, "ignore_eos": True}
    return client.request("POST", "/v1/completions", json.dumps(body).encode())


async def _ask(client: Client, data: bytes, watch: Watch | None = None) -> Reply:
    """Raises BenchError."""
    try:
        reply = await client.send(data, watch)
    except OSError as error:
        raise BenchError(f"a request failed: {error}") from error
    if reply.status != 200 or not reply.lines[-1].endswith(b"[DONE]"):
        raise BenchError(f"a request failed: status {reply.status}: {reply.lines[-1][:200].decode()}")
    return reply


def _prompt(rng: np.random.Generator, count: int) -> list[int]:
    ids: list[int] = rng.integers(_FIRST_ID, _FIRST_ID + _IDS, count).tolist()
    return ids


# ---- clients that ask again at once -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Throughput:
    tokens_per_s: float
    client_cpu: float  # part of a CPU


def kept_full(server: Server, streams: int, seconds: float, seed: int) -> Throughput:
    """So many clients with llm-serving's lengths, and what came in the last `seconds`. Raises BenchError."""
    return uvloop.run(_keep_full(server, streams, seconds, seed))


async def _keep_full(server: Server, streams: int, seconds: float, seed: int) -> Throughput:
    client, rng = Client(server.base_url), np.random.default_rng(seed)
    lengths = rng.permutation(recorded_lengths("task1")).tolist()
    requests = itertools.cycle([request(client, _prompt(rng, prompt), output) for prompt, output in lengths])

    came = 0

    async def ask_again() -> None:
        nonlocal came
        while True:
            seen = 0

            def watch(reply: Reply) -> bool:
                nonlocal came, seen
                came, seen = came + len(reply.lines) - seen, len(reply.lines)
                return False

            await _ask(client, next(requests), watch)
            came -= 1  # the last line is no token

    tasks = [asyncio.create_task(ask_again()) for _ in range(streams)]
    try:
        await _sleep(WARM_S, tasks)
        before, began, cpu_s = came, time.monotonic(), time.process_time()
        await _sleep(seconds, tasks)
        cpu, took = time.process_time() - cpu_s, time.monotonic() - began
        return Throughput((came - before) / took, cpu / took)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        client.close()


async def _sleep(seconds: float, tasks: Sequence[asyncio.Task[None]]) -> None:
    """Raises what a task raises."""
    done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    for task in done:
        task.result()


# ---- all at once --------------------------------------------------------------------------------------------------


def all_at_once(server: Server, lengths: Sequence[Lengths], seed: int) -> float:
    """Seconds to the end of the last one. Raises BenchError."""

    async def run() -> float:
        client, rng = Client(server.base_url), np.random.default_rng(seed)
        requests = [request(client, _prompt(rng, prompt), output) for prompt, output in lengths]
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for data in requests:
                group.create_task(_ask(client, data))
        took = time.monotonic() - began
        client.close()
        return took

    return uvloop.run(run())


# ---- conversations ------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Talk:
    """Milliseconds to each first token, and tokens of prompts."""

    first_ms: list[float] = field(default_factory=list)
    prompt_tokens: int = 0

    def percentile(self, share: float) -> float:
        return float(np.percentile(self.first_ms, share))


def converse(server: Server, load: Load, replicas: int, seed: int) -> Talk:
    """In real time. Raises BenchError."""

    async def run() -> Talk:
        client, talk, began = Client(server.base_url), Talk(), time.monotonic()

        async def session(asked: Asked | None) -> None:
            while asked is not None:
                await asyncio.sleep(max(0.0, asked.arrival / 1e3 - (time.monotonic() - began)))
                prompt = (asked.prompt % _IDS + _FIRST_ID).tolist()
                sent_ns = time.monotonic_ns()
                reply = await _ask(client, request(client, prompt, len(asked.output)))
                talk.first_ms.append((reply.times_ns[0] - sent_ns) / 1e6)
                talk.prompt_tokens += len(prompt)
                asked = asked.then(1e3 * (time.monotonic() - began)) if asked.then else None

        async with asyncio.TaskGroup() as group:
            for first in load(replicas, seed):
                group.create_task(session(first))
        client.close()
        return talk

    return uvloop.run(run())
