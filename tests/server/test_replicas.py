"""A real server of three replicas on emulated devices, which fail at one token: who pays for a replica that is lost.

Every stream must be, token by token, what it was before anything happened.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time

import httpx
import pytest

from scripts.lab.server import launched
from scripts.verify import chaos
from scripts.verify.survival.load import jobs, undisturbed
from scripts.verify.survival.session import EMULATED
from scripts.verify.survival.streams import Job, Stream, read

REPLICAS = 3
OUTSIDE = 299  # below the range of tokens that the device chooses from
WAIT_S = 60  # nothing is asserted to be fast: this only ends a hang
WORK = jobs(9, 120)
POISON = Job.completion([400, OUTSIDE, 500], 20)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    sets = (*chaos.DEFAULTS, f"pipeline.replicas={REPLICAS}", "pipeline.runner.fault=segfault",
            f"pipeline.runner.fault_token={OUTSIDE}")  # fmt: skip
    with launched(EMULATED, sets, tmp_path_factory.mktemp("replicas") / "log") as server:
        yield server
        assert server.stop() == 0


@pytest.fixture(scope="module")
def expected(server):
    return asyncio.run(undisturbed(server.port, WORK))


def health(server):
    answer = httpx.get(server.base_url + "/health", timeout=WAIT_S)
    return answer.status_code, answer.json()


async def until(holds, what):
    deadline = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.005)


def all_well(server):
    status, body = health(server)
    return (status, body["status"]) == (200, "alive")


async def meanwhile(server, act):
    """Streams of the work while something happens; all to their ends."""
    streams = [Stream() for _ in WORK]
    tasks = [asyncio.create_task(read(server.port, job, each)) for job, each in zip(WORK, streams, strict=True)]
    await until(lambda: all(len(stream.tokens) > 3 for stream in streams), "the streams never began")
    result = await act(streams)
    await asyncio.gather(*tasks)
    await until(lambda: all_well(server), "it is never well again")
    return streams, result


def whole(server, streams, expected):
    for stream, tokens in zip(streams, expected, strict=True):
        assert not stream.error, server.log_text()
        assert stream.tokens == tokens


def restarts(server):
    metrics = server.metrics()
    return [int(metrics.total("restarts_total", stage="inference", replica=str(i))) for i in range(REPLICAS)]


def test_all_replicas_serve(server, expected):
    admitted = [server.metrics().total("admitted_requests_total", replica=str(i)) for i in range(REPLICAS)]
    assert sum(admitted) == len(WORK)
    assert min(admitted) > 0
    ready = httpx.get(server.base_url + "/ready", timeout=WAIT_S).json()
    assert [one["state"] for one in ready["replicas"]] == ["ok"] * REPLICAS
    assert server.metrics().total("replica_ready") == REPLICAS


def test_streams_of_a_replica_that_is_killed_go_on_at_others(server, expected):
    """While it is away the server is degraded, not down."""
    before = server.metrics().total("requests_resumed_total")

    async def kill(streams):
        stages = server.stages()
        os.kill(stages["preprocess 1"], signal.SIGSTOP)  # it does not come back before somebody has looked
        try:
            os.kill(stages["sampling 1"], signal.SIGKILL)
            await until(lambda: health(server)[1].get("status") == "degraded", "it is never degraded")
            return health(server), [stream.replica for stream in streams]
        finally:
            os.kill(stages["preprocess 1"], signal.SIGCONT)

    streams, ((status, body), homes) = asyncio.run(meanwhile(server, kill))
    whole(server, streams, expected)
    assert status == 200
    assert [one["replica"] for one in body["replicas"]] == [*range(REPLICAS)]
    assert {one["state"] for one in body["replicas"] if one["replica"] != 1} == {"ok"}
    resumed = server.metrics().total("requests_resumed_total") - before
    assert resumed == homes.count("1") > 0
    assert f"replica 1: {homes.count('1')} requests go on elsewhere, 0 that may" in server.log_text()


def test_a_poisoned_request_costs_its_own_replica_only(server, expected):
    """Whoever was there with it waits, and runs alone first; it is refused when it has done it twice."""
    before, bad = restarts(server), Stream()

    async def poison(_):
        await read(server.port, POISON, bad)

    streams, _ = asyncio.run(meanwhile(server, poison))
    whole(server, streams, expected)
    assert bad.status == 500
    assert "fail twice" in bad.error
    assert sorted(now - then for now, then in zip(restarts(server), before, strict=True)) == [0, 0, 2]


def test_if_its_replica_stays_away_it_costs_one_more_at_most(server, expected):
    """The replica dies again before it serves: its suspects go on elsewhere, one at a time."""
    before, bad = restarts(server), Stream()

    async def poison(_):
        pids = server.stages()
        asking = asyncio.create_task(read(server.port, POISON, bad))

        def lost():
            now = server.stages()
            return [key for key in pids if key.startswith("inference") and now.get(key, pids[key]) != pids[key]]

        await until(lost, "no replica fails")
        os.kill(server.stages()[lost()[0]], signal.SIGKILL)
        await asking

    streams, _ = asyncio.run(meanwhile(server, poison))
    whole(server, streams, expected)
    assert bad.status == 500
    assert "fail twice" in bad.error
    assert "goes on at replica" in server.log_text()
    assert sorted(now - then for now, then in zip(restarts(server), before, strict=True)) == [0, 1, 2]
    assert asyncio.run(undisturbed(server.port, WORK)) == expected
