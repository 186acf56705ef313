"""The HAProxy configuration that is shipped, before two routers and their node: nothing is held back, a router that
is lost, drains or comes back costs no request that had not reached it, and what is for operators stays inside."""

from __future__ import annotations

import concurrent.futures
import contextlib
import http.client
import json
import os
import signal

import httpx
import pytest

from pipeline.front.http.access import is_operators
from pipeline.launcher.certificates import NODE, ROUTER, link_files, make_certificates
from scripts.lab.haproxy import ABSENT, balanced, find_haproxy
from tests.server.launched import Attempt, Launched, pid_is_gone, wait_until

STREAMS, TOKENS = 8, 250
SERVER = (
    "pipeline.max_rows=16", "pa_config.num_blocks=600", "pipeline.runner.cost_model.fixed_ms=10",
    "model_config.seq_length=1100", "model_config.max_generate_length=1100",
)  # fmt: skip

if find_haproxy() is None and "CI" not in os.environ:
    pytest.skip(ABSENT, allow_module_level=True)


class Cluster:
    """A node, two routers, and HAProxy before them."""

    def __init__(self, folder):
        self._folder = folder
        make_certificates(folder / "certificates", ["127.0.0.1"])
        (folder / "node").mkdir()
        listen = ("pipeline.link.listen=127.0.0.1:0", "pipeline.metrics_port=0")
        self._node = Attempt(folder / "node", *SERVER, *listen, *self._link(NODE))
        assert self._node.outcome() == "ready", self._node.text_said
        self.routers = [self.start(0), self.start(1)]
        self._stack = contextlib.ExitStack()
        first, second = (router.base.removeprefix("http://") for router in self.routers)
        self.proxy = self._stack.enter_context(balanced(first, second, folder / "haproxy.log"))
        self.client = httpx.Client(base_url=self.proxy.base_url, timeout=60)

    def _link(self, role):
        folder = self._folder / "certificates"
        return ("pipeline.link.heartbeat_s=0.4", *(f"{key}={file}" for key, file in link_files(folder, role).items()))

    def start(self, number, port=0):
        (folder := self._folder / f"router {number}").mkdir(exist_ok=True)
        overrides = (*SERVER, f'pipeline.nodes=["{self._node.base}"]', f"serving_config.server_port={port}")
        return Launched(folder, (*overrides, *self._link(ROUTER)))

    def kill(self, number):
        """With all of it: a request that comes while it dies would be lost with it."""
        stages = self.routers[number].stages().values()
        self.routers[number].process.kill()
        wait_until(lambda: all(map(pid_is_gone, stages)), "its stages outlive it")

    def restart(self, number):
        """At its old place."""
        self.routers[number].stop()
        self.routers[number] = self.start(number, int(self.routers[number].base.rpartition(":")[2]))

    def in_flight(self):
        return [int(router.metric("ringserve_requests_in_flight")) for router in self.routers]

    def ask(self, number=0, tokens=2):
        return self.client.post("/v1/completions", json={"prompt": f"one of many {number}", "max_tokens": tokens})

    def wait_used(self, number):
        """HAProxy sends requests there, too."""

        def used():
            before = self.routers[number].metric("ringserve_requests_total", outcome="length")
            assert {self.ask().status_code for _ in range(4)} == {200}
            return self.routers[number].metric("ringserve_requests_total", outcome="length") > before

        wait_until(used, f"router {number} gets no request", 20)

    def stop(self):
        self.client.close()
        self._stack.close()
        for server in (*self.routers, self._node):
            server.stop()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    yield cluster
    cluster.stop()


class Stream:
    """One that has begun."""

    def __init__(self, cluster, number, tokens=TOKENS):
        prompt = f"stream {number}: the words of its own"
        self.due = cluster.routers[0].text(prompt, tokens)
        self._connection = http.client.HTTPConnection(cluster.proxy.base_url.removeprefix("http://"), timeout=60)
        body = {"prompt": prompt, "max_tokens": tokens, "stream": True, "temperature": 0}
        self._connection.request("POST", "/v1/completions", json.dumps(body), {"content-type": "application/json"})
        self._answer = self._connection.getresponse()
        assert self._answer.status == 200, self._answer.read()
        self._first = self._answer.readline()

    def text(self):
        """To its end; None if it broke off."""
        with contextlib.closing(self._connection):
            try:
                lines = (self._first + self._answer.read()).decode().splitlines()
            except (http.client.IncompleteRead, ConnectionError):
                return None
        lines = [line[6:] for line in lines if line.startswith("data: ")]
        assert lines[-1] == "[DONE]", lines[-1]
        return "".join(json.loads(line)["choices"][0]["text"] for line in lines[:-1])

    def leave(self):
        self._answer.close()
        self._connection.close()


def streams(cluster, count):
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda number: Stream(cluster, number), range(count)))


def test_tokens_come_as_they_are_made_from_both_routers(cluster):
    running = streams(cluster, STREAMS)
    assert sum(cluster.in_flight()) == STREAMS, "their first tokens came when all were there"
    assert min(cluster.in_flight()) >= STREAMS // 2 - 1, "by the number of those that run"
    assert [stream.text() for stream in running] == [stream.due for stream in running]


@pytest.mark.parametrize("streamed", [True, False])
def test_a_client_that_leaves_frees_its_row(cluster, streamed):
    if streamed:
        leaves = Stream(cluster, 0, 300).leave
    else:
        connection = http.client.HTTPConnection(cluster.proxy.base_url.removeprefix("http://"))
        body = json.dumps({"prompt": "nobody waits for it", "max_tokens": 300})
        connection.request("POST", "/v1/completions", body, {"content-type": "application/json"})
        leaves = connection.close
    wait_until(lambda: sum(cluster.in_flight()) == 1, "it does not run")
    before = sum(router.metric("ringserve_requests_total", outcome="cancelled") for router in cluster.routers)
    leaves()
    wait_until(lambda: sum(cluster.in_flight()) == 0, "it goes on for nobody")
    after = sum(router.metric("ringserve_requests_total", outcome="cancelled") for router in cluster.routers)
    assert after == before + 1


PATHS = [
    "/", "/metrics", "/live", "/page/live.js", "/debug/trace", "/admin/weights", "/admin/nodes",
    "/health", "/ready", "/v1/models", "/version",
]  # fmt: skip


def test_what_is_for_operators_stays_inside(cluster):
    for path in PATHS:
        assert cluster.client.get(path).status_code == (404 if is_operators(path) else 200), path
    spelled = ("//metrics", "/metrics/", "/%6detrics", "/debug/%74race", "///debug/trace", "//admin/weights")
    for path in (*spelled, "/%61dmin/nodes"):
        assert cluster.client.get(path).status_code == 404, path


def test_who_comes_back_for_an_answer_finds_the_router_that_keeps_it(cluster):
    for number in range(4):
        body = {"prompt": f"kept {number}", "max_tokens": 2}
        answer = cluster.client.post("/v1/completions", json=body, headers={"x-detached-s": "60"})
        for name in (answer.headers["x-stream-id"], answer.json()["id"]):
            assert [cluster.client.get(f"/v1/streams/{name}").status_code for _ in range(3)] == [200] * 3
        assert cluster.client.delete(f"/v1/streams/{name}").status_code == 200
        asked = cluster.client.post("/v1/responses", json={"input": "?", "max_output_tokens": 16, "background": True})
        name = asked.json()["id"]
        assert [cluster.client.get(f"/v1/responses/{name}").status_code for _ in range(3)] == [200] * 3
        assert cluster.client.delete(f"/v1/responses/{name}").status_code == 200
    wait_until(lambda: sum(cluster.in_flight()) == 0, "one that was deleted goes on")


def test_a_router_that_is_killed_takes_its_own_streams_and_nothing_else(cluster):
    running = streams(cluster, STREAMS)
    lost = cluster.in_flight()[0]
    cluster.kill(0)
    assert [cluster.ask(number).status_code for number in range(20)] == [200] * 20, "before it is known, and after"
    texts = [stream.text() for stream in running]
    assert 0 < lost < STREAMS
    assert texts.count(None) == lost
    assert all(text in (None, stream.due) for text, stream in zip(texts, running, strict=True))
    cluster.restart(0)
    cluster.wait_used(0)


def keep(cluster):
    """A stream that goes on without its client, which has left. Returns its path."""
    body = {"prompt": "a long one", "max_tokens": 1000, "stream": True}
    with cluster.client.stream("POST", "/v1/completions", json=body, headers={"x-detached-s": "60"}) as answer:
        return f"/v1/streams/{answer.headers['x-stream-id']}"


def goes_on(client, path):
    """It can be read, and more comes."""
    with client.stream("GET", path, headers={"last-event-id": "0"}) as answer:
        return answer.status_code == 200 and next(answer.iter_lines()) == "id: 1"


def test_a_router_that_drains_ends_what_it_has_and_gets_nothing_new(cluster):
    running = streams(cluster, STREAMS)
    assert min(cluster.in_flight()) > 0
    kept = [path for path in [keep(cluster) for _ in range(4)] if goes_on(cluster.routers[1].client, path)]
    assert kept
    cluster.routers[1].process.send_signal(signal.SIGTERM)
    wait_until(lambda: cluster.routers[1].client.get("/ready").status_code == 503, "it does not drain")
    wait_until(lambda: {cluster.ask(number).status_code for number in range(6)} == {200}, "it is still asked")
    for path in kept:  # who comes back finds it
        assert goes_on(cluster.client, path)
        told = cluster.client.post(f"{path.replace('streams', 'requests')}/cancel").json()
        assert told["cancelled"] == 1
    assert [stream.text() for stream in running] == [stream.due for stream in running]
    assert cluster.routers[1].process.wait(20) == 0
    assert [cluster.ask(number).status_code for number in range(10)] == [200] * 10


def test_without_a_router_it_says_so_as_a_server_would(cluster):
    cluster.kill(0)
    answer = cluster.ask()
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert answer.json()["error"]["type"] == "service_unavailable_error"
