"""The two processes of a pair, and the jobs that they run together: `python -m scripts.bench.ipc.pair SPEC` leads. It
starts the one that follows, and prints JSON."""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scripts.bench.ipc.transports import make_transport
from scripts.bench.ipc.transports.base import (
    Access,
    Buffer,
    Channel,
    Fill,
    Job,
    PairSpec,
    Transport,
    make_fill,
    make_touch,
)
from scripts.lab.clock import cpu_seconds, pin

Float64 = NDArray[np.float64]
Figures = dict[str, float | str | int]


def open_channel(transport: Transport, access: Access, batch: int = 1) -> Channel:
    size = transport.size
    return transport.channel(access, make_fill(size), make_touch(size), batch)


def warm_up(job: Job) -> Job:
    return replace(job, count=max(2, min(200, job.count // 10)))


# ---- leader ----------------------------------------------------------------------------------------------------


def lead_job(transport: Transport, job: Job, follower: int) -> Figures:
    channel = open_channel(transport, job.access, job.batch)
    lead = {"idle": _idle, "stream": _stream, "stream-batched": _stream, "parts": _parts}.get(job.mode, _ping_pong)
    return {"mode": job.mode, "access": job.access, "batch": job.batch, **lead(transport, channel, job, follower)}


def _ping_pong(transport: Transport, channel: Channel, job: Job, follower: int) -> Figures:
    transport.greet(channel, leads=True)
    warm = warm_up(job).count
    if transport.name.startswith("raw"):  # one run per pair: its first round trips are the warm-up
        trips = transport.round_trips_ns(channel, replace(job, count=warm + job.count))[warm:]
        return one_way_figures(trips, job)
    transport.round_trips_ns(channel, warm_up(job))
    use = _meter(follower)
    trips = transport.round_trips_ns(channel, job)
    return use() | one_way_figures(trips, job)


def one_way_figures(trips_ns: list[int], job: Job) -> Figures:
    one_way_us = np.asarray(trips_ns) / 2000
    names = ("p50_us", "p99_us", "p999_us", "max_us")
    figures: Figures = dict(zip(names, np.percentile(one_way_us, [50, 99, 99.9, 100]).tolist(), strict=True))
    if not job.pause_us:
        figures["msgs_per_s"] = 1e6 / float(one_way_us.mean())
    return {**figures, "samples": len(trips_ns)}


def _idle(transport: Transport, channel: Channel, job: Job, follower: int) -> Figures:
    """Both wait for a message: the follower until the leader's wait is over."""
    transport.wait(0.1)  # whatever still runs after the start is over
    use = _meter(follower)
    transport.wait(job.seconds)
    figures = use()
    channel.send()
    return figures


def _stream(transport: Transport, channel: Channel, job: Job, follower: int) -> Figures:
    transport.greet(channel, leads=True)
    _send_all(channel, warm_up_stream(job))
    use, start = _meter(follower), time.perf_counter()
    _send_all(channel, job)
    seconds = time.perf_counter() - start
    return use() | {"msgs_per_s": job.count / seconds, "samples": job.count}


def _send_all(channel: Channel, job: Job) -> None:
    """And wait for the answer to all of them."""
    if job.batch > 1 and channel.send_run:
        channel.send_run(job.count)
    else:
        send = channel.send
        for _ in range(job.count):
            send()
    channel.receive()


def warm_up_stream(job: Job) -> Job:
    return replace(job, count=max(2, job.count // 20 // job.batch) * job.batch)


def _parts(transport: Transport, _channel: Channel, job: Job, _follower: int) -> Figures:
    """Median cost of writing a message where it is sent from, and of reading it where it arrived. The pair's
    one-way time less these two is what the hand-over costs."""
    fill, fills = _timed(make_fill(transport.size))
    touch, touches = _timed(make_touch(transport.size))
    channel = transport.channel(job.access, fill, touch, job.batch)
    transport.greet(channel, leads=True)
    fills.clear()
    touches.clear()
    figures = one_way_figures(transport.round_trips_ns(channel, job), job)
    figures |= {"fill_us": _median_us(fills), "touch_us": _median_us(touches)}
    # The same on memory that no other core has touched: what is lost to the trip between the caches
    memory = memoryview(bytearray(transport.size))
    fills.clear()
    touches.clear()
    for _ in range(200):
        fill(memory)
        touch(memory)
    return {**figures, "private_fill_us": _median_us(fills), "private_touch_us": _median_us(touches)}


def _timed(function: Fill) -> tuple[Fill, list[int]]:
    spent: list[int] = []
    clock = time.perf_counter_ns

    def timed(buffer: Buffer) -> object:
        start = clock()
        result = function(buffer)
        spent.append(clock() - start)
        return result

    return timed, spent


def _median_us(times_ns: list[int]) -> float:
    return float(np.median(times_ns)) / 1000


def _meter(follower: int) -> Callable[[], Figures]:
    """Tells percent of one CPU, of the leader and the follower, from now until it is asked."""

    def now() -> Float64:
        return np.array([time.perf_counter(), time.process_time(), cpu_seconds(follower)])

    def figures() -> Figures:
        wall, leader_s, follower_s = (now() - before).tolist()
        return {"leader_cpu_pct": 100 * leader_s / wall, "follower_cpu_pct": 100 * follower_s / wall}

    before = now()
    return figures


# ---- follower --------------------------------------------------------------------------------------------------


def follow_job(transport: Transport, job: Job) -> None:
    channel = open_channel(transport, job.access, job.batch)
    if job.mode == "idle":
        channel.receive()
        return
    transport.greet(channel, leads=False)
    if job.mode in {"stream", "stream-batched"}:
        for part in (warm_up_stream(job), job):
            receive_all(channel, part)
            channel.send()
    elif transport.name.startswith("raw"):
        transport.answer(channel, replace(job, count=warm_up(job).count + job.count))
    else:
        if job.mode != "parts":
            transport.answer(channel, warm_up(job))
        transport.answer(channel, job)


def receive_all(channel: Channel, job: Job) -> None:
    if job.batch > 1 and channel.receive_run:
        channel.receive_run(job.count)
        return
    receive = channel.receive
    for _ in range(job.count):
        receive()


def verify_once(transport: Transport, spec: PairSpec, *, leads: bool) -> None:
    """One checked message each way, for each way of access."""
    for access in dict.fromkeys(job.access for job in spec.jobs):
        channel = open_channel(transport, access)
        for sends in (not leads, leads):
            if sends:
                channel.send()
            elif channel.receive() != make_touch(transport.size)(transport.payload):
                # A benchmark of a transport that loses bytes is worth nothing
                raise RuntimeError("the message that arrived is not the one that was sent")


# ---- the processes -----------------------------------------------------------------------------------------------


def lead(spec: PairSpec) -> list[Figures]:
    transport = make_transport(spec)
    ticket = transport.prepare()
    try:
        follower = multiprocessing.get_context("spawn").Process(target=follow, args=(spec, ticket), daemon=True)
        follower.start()
        if spec.pinned:
            pin(0)  # not before: the follower would inherit it
        transport.connect()
        verify_once(transport, spec, leads=True)
        figures = [lead_job(transport, job, follower.pid or 0) for job in spec.jobs]
        follower.join(5)  # one that is killed at the end of this process leaves its shared memory behind
        return figures
    finally:
        transport.close()


def follow(spec: PairSpec, ticket: Any) -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: some transports would wait for ever
    if spec.pinned:
        pin(1)
    transport = make_transport(spec)
    transport.attach(ticket)
    verify_once(transport, spec, leads=False)
    for job in spec.jobs:
        follow_job(transport, job)


if __name__ == "__main__":
    try:
        answer: dict[str, object] = {"figures": lead(PairSpec.from_text(sys.argv[1]))}
    except ImportError as error:
        answer = {"skipped": f"not installed ({error})"}
    print(json.dumps(answer))
