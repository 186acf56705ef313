"""What the front costs per token: streams from a back end that publishes as fast as it can, to real HTTP clients.

Three processes, as in the server: the front; a back end at the other end of its rings that answers every request at
once (in turn, one token per request, as steps would); and a load generator that reads the streams. The CPU time that
the front uses, over the tokens that arrived, is its cost per token.

    python -m scripts.bench.front                  64 streams of 500 tokens, each API
    python -m scripts.bench.front --profile        where the front's time goes
    python -m scripts.bench.front --pace-ms 22.5   one token per stream and step, as a device would
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import json
import multiprocessing
import os
import pstats
import socket
import statistics
import time
from dataclasses import dataclass
from typing import Any

import uvloop

import ipc
from pipeline.front.server import run_front
from pipeline.front.settings import FrontRings, FrontSettings
from pipeline.runtime.control_channel import Channel
from pipeline.runtime.generations import END, Control, Generation
from pipeline.stats import Counters, StatsHandle, StatsPage, StatsReader
from pipeline.wire.delta import Delta, FinishReason
from pipeline.wire.request import Submit, unpack_request

BODIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llm-serving": ("/models/llama2/generate_stream", {"inputs": "x", "parameters": {}}),
    "completions": ("/v1/completions", {"prompt": "x", "stream": True}),
}
WORDS = [" word", " another", " and", " punctuation", ",", " a", " “quoted”", "\n"]


@dataclass(frozen=True, slots=True)
class Plan:
    streams: int
    tokens: int
    pace_s: float


def serve(
    settings: FrontSettings, control: socket.socket, listener: socket.socket, stats: StatsHandle, profile: bool
) -> None:
    """The front's process."""
    os.environ.pop("PYTHONASYNCIODEBUG", None)
    profiler = cProfile.Profile()
    if profile:
        profiler.enable()
    listener.setblocking(False)
    run_front(settings, Control(Channel(control)), stats, [listener])
    if profile:
        profiler.disable()
        pstats.Stats(profiler).sort_stats("tottime").print_stats(28)


def answer(rings: FrontRings, stats: StatsHandle, plan: Plan) -> None:
    """The back end: collects all requests of a round, then sends token after token to each."""
    requests = ipc.ByteRing.from_handle(rings.requests).consumer(label="preprocess")
    replies = ipc.ByteRing.from_handle(rings.replies).producer(label="preprocess")
    deltas = ipc.ByteRing.from_handle(rings.deltas).producer(label="sampling")
    page = StatsPage.from_handle(stats)
    for stage in ("preprocess", "inference", "sampling"):
        Counters(page, stage).set(0, 1)
    try:
        while True:
            waiting: list[int] = []
            while len(waiting) < plan.streams:
                message = unpack_request(requests.read_bytes())
                if isinstance(message, Submit):
                    waiting += [choice.request for choice in message.choices]
            publish(deltas, waiting, plan)
    except (ipc.RingClosed, ipc.PeerDied):
        replies.close()


def publish(deltas: ipc.ByteProducer, requests: list[int], plan: Plan) -> None:
    begun = time.monotonic()
    for i in range(1, plan.tokens + 1):
        reason = FinishReason.LENGTH if i == plan.tokens else FinishReason.NONE
        word = WORDS[i % len(WORDS)]
        deltas.write_many([Delta(request, i, 20, 0, 1000 + i, -0.5, reason, word).pack() for request in requests])
        if plan.pace_s:
            time.sleep(max(0.0, begun + i * plan.pace_s - time.monotonic()))


async def read_stream(port: int, api: str, tokens: int) -> int:
    """One client; the number of lines that hold a token."""
    path, body = BODIES[api]
    limit = {"max_tokens": tokens} if api == "completions" else {"parameters": {"max_new_tokens": tokens}}
    content = json.dumps(body | limit).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(content)}\r\n\r\n"
    writer.write(head.encode() + content)
    count = 0
    mark = b'"generated_text"' if api == "llm-serving" else b'"finish_reason"'
    while part := await reader.read(1 << 16):
        count += part.count(mark)
    writer.close()
    return count


async def run_round(port: int, api: str, plan: Plan) -> tuple[float, int]:
    """Seconds and tokens of one round of streams."""
    begun = time.perf_counter()
    counts = await asyncio.gather(*(read_stream(port, api, plan.tokens) for _ in range(plan.streams)))
    return time.perf_counter() - begun, sum(counts)


def cpu_s(pid: int) -> float:
    """CPU time of another process, user and kernel: its clock, whose id the kernel derives from the pid."""
    return time.clock_gettime((~pid << 3) | 2)


def measure(port: int, pid: int, api: str, plan: Plan, rounds: int) -> dict[str, Any]:
    results = []
    for _ in range(rounds + 1):  # the first one warms up
        before = cpu_s(pid)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            seconds, tokens = runner.run(run_round(port, api, plan))
        results.append((tokens / seconds, (cpu_s(pid) - before) / tokens * 1e6, tokens))
    rates, costs, counts = zip(*results[1:], strict=True)
    return {
        "api": api,
        "streams": plan.streams,
        "tokens": sum(counts),
        "expected_tokens": rounds * plan.streams * plan.tokens,
        "tokens_per_s": round(statistics.median(rates)),
        "front_us_per_token": round(statistics.median(costs), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pace-ms", type=float, default=0.0)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    plan = Plan(options.streams, options.tokens, options.pace_ms / 1000)
    for result in run(plan, options.rounds, profile=options.profile):
        print(json.dumps(result) if options.json else "  ".join(f"{key} {value}" for key, value in result.items()))


def run(plan: Plan, rounds: int, *, profile: bool) -> list[dict[str, Any]]:
    spawn = multiprocessing.get_context("spawn")
    made = {name: ipc.ByteRing.create(name, capacity=1 << 20) for name in ("requests", "replies", "deltas")}
    rings, page = FrontRings(**{name: ring.handle for name, ring in made.items()}), StatsPage.create()
    settings = FrontSettings(
        model_name="null", vocab_size=32000, max_length=1 << 20, max_prompt=4096, max_rows=plan.streams,
        max_queue=1024, log_level="warning",
    )  # fmt: skip
    channel, theirs = Channel.pair()  # this process is the front's launcher
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    front = spawn.Process(target=serve, args=(settings, theirs, listener, page.handle, profile), name="front")
    back = spawn.Process(target=answer, args=(rings, page.handle, plan), name="back end")
    try:
        front.start()
        back.start()
        fields, fds = Generation(1, {name: ring.handle for name, ring in made.items()}).to_message()
        channel.send("generation", fds, **fields)
        assert front.pid is not None
        pid, port = front.pid, listener.getsockname()[1]
        while not StatsReader(page).ready:
            time.sleep(0.01)
        return [measure(port, pid, api, plan, rounds) for api in BODIES]
    finally:
        if front.pid is not None:
            os.kill(front.pid, END)
        front.join(10)
        back.terminate()
        back.join(10)
        for ring in made.values():
            ring.__exit__()
        page.unlink()
        page.close()


if __name__ == "__main__":
    main()
