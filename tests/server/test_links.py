"""A router and two nodes with a network between them that stalls, is cut, half open and heals, under 32 streams: no
token is lost, none comes twice. And whoever is no router is refused by name, while streams go on."""

from __future__ import annotations

import concurrent.futures
import http.client
import json
import re
import socket
import ssl
from importlib.metadata import version

import httpx
import pytest

from model.tokenizer import fingerprint, pack_vocabulary
from pipeline.front.main import link_settings
from pipeline.launcher.certificates import link_files, make_certificates
from pipeline.link.frames import FrameReader, FrameWriter, Kind, batches
from pipeline.link.hello import NODE, ROUTER, hello
from pipeline.link.tls import router_context
from pipeline.runtime.tokenizer import open_tokenizer
from pipeline.wire.request import Cancel
from tests.server.launched import Attempt, Launched, wait_until
from tests.server.proxy import FLOWS, STALLS, Proxy

STREAMS, TOKENS = 32, 440
SERVER = (
    "model_config.decode_batch_size=32", "pa_config.num_blocks=1200", "pipeline.runner.cost_model.fixed_ms=16",
)  # fmt: skip


def link(folder, role):
    return ("pipeline.link.heartbeat_s=0.4", *(f"{key}={file}" for key, file in link_files(folder, role).items()))


class Cluster:
    def __init__(self, folder):
        self.certificates = folder / "certificates"
        make_certificates(self.certificates, ["127.0.0.1"])
        self.proxy = Proxy(2)
        self.nodes, self.router = [], None
        for name in ("first", "second"):
            (folder / name).mkdir()
            listen = ("pipeline.link.listen=127.0.0.1:0", "pipeline.metrics_port=0")
            self.nodes.append(Attempt(folder / name, *SERVER, *listen, *link(self.certificates, NODE)))
        nodes = ", ".join(f'"127.0.0.1:{port}"' for port in self.proxy.ports)
        overrides = (*SERVER, f"pipeline.nodes=[{nodes}]", *link(self.certificates, ROUTER))
        with concurrent.futures.ThreadPoolExecutor() as pool:
            ready = pool.submit(self._await_nodes)
            self.router = Launched(folder, overrides)  # it may come first, and looks for nodes
            ready.result()
        self.wait_linked(0, 1)

    def _await_nodes(self):
        for number, node in enumerate(self.nodes):
            assert node.outcome() == "ready", node.text_said
            self.proxy.upstreams[number] = node.base

    def wait_linked(self, *nodes, up=1):
        for node in nodes:
            wait_until(lambda node=node: self.linked(node) == up, lambda: f"{self.router.text_said}", 30)

    def linked(self, node):
        """Replicas of the node that the router can use."""
        return self.router.metric("ringserve_link_lanes_up", node=f"127.0.0.1:{self.proxy.ports[node]}")

    def node_metric(self, node, name):
        base = re.search(r"metrics at (http://[^/]+)/metrics", self.nodes[node].text_said)[1]
        lines = httpx.get(f"{base}/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if re.match(rf"{name}[ {{]", line))

    def stop(self):
        for server in (self.router, *self.nodes):
            if server is not None:
                server.stop()
        self.proxy.close()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    yield cluster
    cluster.stop()


def stream(cluster, number, tokens=TOKENS):
    """The text that came, and what was due."""
    prompt = f"stream {number}: the words of its own"
    connection = http.client.HTTPConnection(cluster.router.base.removeprefix("http://"), timeout=60)
    body = {"prompt": prompt, "max_tokens": tokens, "stream": True, "temperature": 0}
    connection.request("POST", "/v1/completions", json.dumps(body), {"content-type": "application/json"})
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    lines = [line[6:] for line in answer.read().decode().splitlines() if line.startswith("data: ")]
    connection.close()
    assert lines[-1] == "[DONE]", lines[-1]
    text = "".join(json.loads(line)["choices"][0]["text"] for line in lines[:-1])
    return text, cluster.router.text(prompt, tokens)


def test_streams_go_on_whatever_the_network_does(cluster):
    proxy, router = cluster.proxy, cluster.router
    with concurrent.futures.ThreadPoolExecutor(STREAMS) as pool:
        streams = [pool.submit(stream, cluster, number) for number in range(STREAMS)]
        wait_until(lambda: router.metric("ringserve_requests_in_flight") == STREAMS, "they do not run", 30)
        proxy.set(0, STALLS)  # nothing comes, and nobody says so
        cluster.wait_linked(0, up=0)
        proxy.cut(0)
        proxy.set(0, FLOWS)
        cluster.wait_linked(0)
        proxy.cut(1)  # both sides hear of it; the router links again at once
        wait_until(lambda: "node 127.0.0.1" in router.text_said, "it did not notice")
        cluster.wait_linked(1)
        proxy.cut(0, 0)  # the node does not hear of it
        cluster.wait_linked(0, up=0)
        wait_until(lambda: not cluster.node_metric(0, "ringserve_router_links"), "the node keeps a dead link")
        proxy.set(0, FLOWS)
        cluster.wait_linked(0)
        proxy.cut(0)
        proxy.cut(1)  # no node is left for a moment
        under_way = sum(not one.done() for one in streams)
        texts = [one.result(60) for one in streams]
    assert under_way, "the streams ended before the last fault"
    assert [text for text, _ in texts] == [due for _, due in texts]
    assert router.metric("ringserve_requests_resumed_total") >= STREAMS
    assert router.metric("ringserve_links_made_total") >= 6
    cluster.wait_linked(0, 1)
    for node in (0, 1):
        wait_until(lambda node=node: not cluster.node_metric(node, "ringserve_num_requests_running"), "rows are kept")
        assert not cluster.node_metric(node, "ringserve_router_requests")
        assert not cluster.node_metric(node, "ringserve_kv_blocks_used")


def test_a_router_tells_times_like_any_server(cluster):
    http = cluster.router.client
    body = {"prompt": "who has the time", "max_tokens": 3}
    answer = http.post("/v1/completions", json=body, headers={"x-ringserve-timings": "1"})
    assert answer.json()["usage"]["total_time"] > 0
    assert "total;dur=" in answer.headers["server-timing"]
    model = http.get("/api/tags").json()["models"][0]["name"]
    lines = http.post("/api/generate", json={"model": model, "prompt": "who", "options": {"num_predict": 3}}).text
    assert json.loads(lines.splitlines()[-1])["done"]


# ---- who is no router ----------------------------------------------------------------------------------------------


class Stranger:
    """To the first node, with a certificate of this role."""

    def __init__(self, cluster, role=ROUTER, certificates=None):
        folder = certificates or cluster.certificates
        files = (folder / "ca.pem", folder / f"{role}.pem", folder / f"{role}.key")
        context = router_context(*files)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        host, _, port = cluster.nodes[0].base.rpartition(":")
        self._socket = context.wrap_socket(socket.create_connection((host, int(port)), timeout=20))
        self.reader, self.writer = FrameReader(1 << 20), FrameWriter()

    def send(self, kind, payload=b"", lane=0, generation=1):
        self._socket.sendall(self.writer.frame(kind, payload, lane, generation))

    def greet(self, mine):
        self.send(Kind.HELLO, mine.pack())
        self.hear(Kind.UP)

    def hear(self, kind):
        while True:
            data = self._socket.recv(1 << 16)
            assert data, "closed without a word"
            for frame in self.reader.feed(data):
                if frame.kind is kind:
                    return frame.payload.decode(errors="replace")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._socket.close()


def facts_of(cluster):
    config = cluster.router.config
    vocabulary = fingerprint(memoryview(pack_vocabulary(open_tokenizer(config, 2048))))
    return link_settings(config, 2048, vocabulary).facts


OWN = 5
HOSTILE = [
    (b"\xff\xff\xff\xff", "the records of a frame do not fill it"),
    (batches([b"\xc1 is no request"])[0], "a request can't be read"),
    (batches([Cancel(OWN + 1 << 32).pack()])[0], "a request has the number of another front"),
]


def refused(cluster, why, count=1):
    """The node's log says so."""
    node = cluster.nodes[0]
    wait_until(lambda: node.text_said.count(why) >= count, lambda: f"no {why!r} in\n{node.text_said}", 20)


def test_a_stranger_is_refused_by_name_and_disturbs_nobody(cluster, tmp_path):
    make_certificates(tmp_path, ["127.0.0.1"])
    facts, ours = facts_of(cluster), version("ringserve")
    links = cluster.node_metric(0, "ringserve_router_links_made_total")
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        streams = [pool.submit(stream, cluster, number) for number in range(4)]
        for wrong in (lambda: Stranger(cluster, certificates=tmp_path), lambda: Stranger(cluster, role=NODE)):
            with pytest.raises((OSError, AssertionError)), wrong() as stranger:  # TLS 1.3: the first read says it
                stranger.hear(Kind.HELLO)
        refused(cluster, "its certificate is refused", count=2)
        refused(cluster, "its certificate is refused: unsuitable certificate purpose")
        host, _, port = cluster.nodes[0].base.rpartition(":")
        with socket.create_connection((host, int(port))) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\nHost: node\r\n\r\n")
            refused(cluster, "no TLS 1.3 with a certificate of the same authority")
        for changed, why in (
            (hello(ROUTER, "0.0.1", 5, facts), f"the node's version is {ours}, the router's 0.0.1"),
            (hello(ROUTER, ours, 5, {**facts, "pipeline.replicas": 3}), "pipeline.replicas is 1 for the node and 3"),
        ):
            with Stranger(cluster) as stranger:
                stranger.send(Kind.HELLO, changed.pack())
                assert why in stranger.hear(Kind.REFUSED)
            refused(cluster, why)
        with Stranger(cluster) as stranger:
            stranger.send(Kind.REQUESTS, b"records before a hello")
            assert "the first frame is no hello" in stranger.hear(Kind.CLOSED)
        assert cluster.node_metric(0, "ringserve_router_links_made_total") == links
        for sent, why in HOSTILE:
            with Stranger(cluster) as stranger:
                stranger.greet(hello(ROUTER, ours, OWN, facts))
                stranger.send(Kind.REQUESTS, sent)
                assert why in stranger.hear(Kind.CLOSED)
            refused(cluster, why)
        with Stranger(cluster) as stranger:
            stranger.greet(hello(ROUTER, ours, OWN, facts))
            flood = [Cancel((OWN << 32) + number).pack() for number in range(100_000)]
            for payload in batches(flood):
                stranger.send(Kind.REQUESTS, payload)
            stranger.hear(Kind.TAKEN)
        assert [one.result(60) for one in streams] == [(due, due) for _, due in (one.result() for one in streams)]
    assert cluster.linked(0) == cluster.linked(1) == 1
    assert "no link" not in cluster.router.text_said.rpartition("linked")[2]


def operators(server):
    return re.search(r"metrics at (http://[^/]+)/metrics", server.text_said)[1]


def test_nodes_of_a_router_come_and_go_and_outlive_its_front(cluster, tmp_path):
    """Another router of the same nodes, which has room for two and begins with one."""
    first, second = (node.base for node in cluster.nodes)
    own = ("pipeline.max_nodes=2", f"pipeline.nodes=[{first}]", "pipeline.metrics_port=0")
    router = Launched(tmp_path, (*SERVER, *own, *link(cluster.certificates, ROUTER)))
    try:
        nodes = f"{operators(router)}/admin/nodes"

        def put(*addresses):
            return {
                each["node"]: (each["state"], each["requests"])
                for each in httpx.put(nodes, json={"nodes": addresses}).json()["data"]
            }

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            due = router.text("go on", 200)
            streams = [pool.submit(router.generate, "go on", 200) for _ in range(8)]
            wait_until(lambda: put(first) == {first: ("linked", 8)}, lambda: put(first), 20)
            put(first, second)
            wait_until(lambda: put(first, second)[second] == ("linked", 0), "it is not linked", 20)
            assert put(second)[first] == ("leaving", 8)
            assert router.generate("a", 3).status_code == 200
            assert put(second)[first] == ("leaving", 8)  # it went to the other one
            assert [one.result(60).json()["generated_text"] for one in streams] == [due] * 8
        wait_until(lambda: put(second) == {second: ("linked", 0)}, lambda: put(second), 20)
        router.kill("front")  # the next one gets the nodes from the launcher
        page = httpx.get(f"{operators(router)}/metrics").text
        assert f'ringserve_link_up{{node="{second}"}}' in page
        assert first not in page
        assert router.end() == 0
    finally:
        router.stop()


def test_a_front_and_a_whole_node_may_die(cluster):
    """The router's front takes its clients along, and serves again; a node takes nothing along."""
    cluster.router.kill("front")
    cluster.wait_linked(0, 1)
    resumed = cluster.router.metric("ringserve_requests_resumed_total")
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        streams = [pool.submit(stream, cluster, number, 200) for number in range(8)]
        wait_until(lambda: cluster.router.metric("ringserve_requests_in_flight") == 8, "they do not run", 30)
        cluster.nodes[0].process.kill()
        texts = [one.result(60) for one in streams]
    assert [text for text, _ in texts] == [due for _, due in texts]
    assert cluster.router.metric("ringserve_requests_resumed_total") > resumed
    assert cluster.router.client.get("/ready").status_code == 200
    cluster.nodes[1].end()  # it drains: its requests have gone elsewhere, and there is no other
    wait_until(lambda: cluster.router.client.get("/ready").status_code == 503, "it is still ready", 20)
    assert "the node says: the node is shutting down" in cluster.router.text_said
    assert cluster.router.client.get("/health").status_code == 200
    assert cluster.router.end() == 0
