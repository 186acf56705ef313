"""What the front costs per token: streams from a back end that publishes as fast as it can, to real HTTP clients.

Three processes, as in the server: the front; a back end at the other end of its rings that answers every request at
once (in turn, one token per request, as steps would); and a load generator that reads the streams. The CPU time that
the front uses, over the tokens that arrived, is its cost per token.

    python -m scripts.bench.front                  64 streams of 500 tokens, each API
    python -m scripts.bench.front --profile        where the front's time goes
    python -m scripts.bench.front --pace-ms 22.5   one token per stream and step, as a device would
"""

from __future__ import annotations

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

import ipc
from pipeline.front.server import run_front
from pipeline.front.settings import FrontRings, FrontSettings
from pipeline.runtime.control_channel import Channel
from pipeline.runtime.generations import END, Control, Generation
from pipeline.stats import Counters, StatsHandle, StatsPage, StatsReader
from pipeline.wire.delta import Delta, FinishReason
from pipeline.wire.request import Submit, unpack_message
from scripts.bench.overhead.client import Question, read_streams
from scripts.lab.arguments import count, parser, within
from scripts.lab.clock import cpu_seconds

WAYS = ("llm-serving", "completions")
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
                message = unpack_message(requests.read_bytes())
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
        deltas.write_many([Delta(request, 0, i, 1000 + i, -0.5, reason, word).pack() for request in requests])
        if plan.pace_s:
            time.sleep(max(0.0, begun + i * plan.pace_s - time.monotonic()))


def measure(port: int, pid: int, way: str, plan: Plan, rounds: int) -> dict[str, Any]:
    rates, costs = [], []
    for _ in range(rounds + 1):
        before = cpu_seconds(pid)
        streams = read_streams(Question(port, way, plan.streams, plan.tokens))
        tokens, took_ns = streams.times_ns.size, streams.times_ns.max() - streams.sent_ns.min()
        rates.append(tokens / float(took_ns) * 1e9)
        costs.append((cpu_seconds(pid) - before) / tokens * 1e6)
    return {
        "api": way,
        "streams": plan.streams,
        "tokens": rounds * tokens,
        "expected_tokens": rounds * plan.streams * plan.tokens,
        "tokens_per_s": round(statistics.median(rates[1:])),  # the first round warms up
        "front_us_per_token": round(statistics.median(costs[1:]), 2),
    }


def main() -> None:
    line = parser(__doc__)
    line.add_argument("--streams", type=count, default=64, help="at once; default 64")
    line.add_argument("--tokens", type=count, default=500, help="of each stream; default 500")
    line.add_argument("--rounds", type=count, default=5, help="default 5")
    line.add_argument("--pace-ms", type=within(0), default=0.0, help="of a step; default 0: as fast as it goes")
    line.add_argument("--profile", action="store_true", help="print where the front's time goes")
    line.add_argument("--json", action="store_true", help="print JSON instead")
    options = line.parse_args()
    plan = Plan(options.streams, options.tokens, options.pace_ms / 1000)
    for result in run(plan, options.rounds, profile=options.profile):
        print(json.dumps(result) if options.json else "  ".join(f"{key} {value}" for key, value in result.items()))


def run(plan: Plan, rounds: int, *, profile: bool) -> list[dict[str, Any]]:
    spawn = multiprocessing.get_context("spawn")
    made = {name: ipc.ByteRing.create(name, capacity=1 << 20) for name in ("requests", "replies", "deltas")}
    rings, page = FrontRings(**{name: ring.handle for name, ring in made.items()}), StatsPage.create()
    settings = FrontSettings(
        model_name="bench", vocab_size=32000, max_length=1 << 20, max_prompt=4096, max_rows=plan.streams,
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
        return [measure(port, pid, way, plan, rounds) for way in WAYS]
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
