"""`/admin/nodes` of a real front of a router, whose nodes are places where nobody listens."""

from __future__ import annotations

import json
import socket

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from pipeline.front.api.node_routes import NODES
from pipeline.launcher.certificates import make_certificates
from tests.examples import examples

KEY, OPERATOR = "0123456789abcdef", "sk-admin-0123456789"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificates")
    make_certificates(folder, ["127.0.0.1"])
    return str(folder)


@pytest.fixture(scope="module")
def places():
    """Nobody listens there."""
    held = [socket.socket() for _ in range(3)]
    for each in held:
        each.bind(("127.0.0.1", 0))
    yield [f"127.0.0.1:{each.getsockname()[1]}" for each in held]
    for each in held:
        each.close()


@pytest.fixture
def router(serve, certificates):
    served = serve(wired=False, certificates=certificates, replicas=2, metrics_port=0)
    with httpx.Client(base_url=f"http://127.0.0.1:{served.metrics_port}") as served.operators:
        yield served


def put(router, body):
    content = body if isinstance(body, bytes) else json.dumps(body)
    return router.operators.put(NODES, content=content, headers={"content-type": "application/json"})


def states(answer):
    return [(each["node"], each["state"], each["replicas_up"], each["requests"]) for each in answer.json()["data"]]


def test_nodes_come_and_go(router, places):
    first, second, third = places
    answer = put(router, {"nodes": [first, second]})
    assert states(answer) == [(first, "not linked", 0, 0), (second, "not linked", 0, 0)]
    router.hear("nodes")  # the launcher keeps them for the next front
    document = router.http.get("/openapi.json").json()
    schema = {"$ref": "#/components/schemas/NodeList", "components": document["components"]}
    Draft202012Validator(schema).validate(answer.json())
    answer = put(router, {"nodes": [second, third]})
    assert states(answer) == [
        (first, "leaving", 0, 0), (second, "not linked", 0, 0),
        (third, "waits for the place of one that leaves", 0, 0),
    ]  # fmt: skip
    Draft202012Validator(schema).validate(answer.json())
    router.front.log(f"node {first} has left")
    assert [node for node, *_ in states(put(router, {"nodes": [second, third]}))] == [second, third]
    assert f'ringserve_link_up{{node="{third}"}} 0.0' in router.operators.get("/metrics").text
    assert states(put(router, {"nodes": []})) == [(second, "leaving", 0, 0), (third, "leaving", 0, 0)]


WRONG = [
    (b"{", "the body is not valid JSON"),
    ({}, "nodes is missing: expected a list"),
    ({"nodes": "a:1"}, "nodes is 'a:1', expected a list"),
    ({"nodes": ["a:1", 5]}, "nodes[1] is 5, expected a string"),
    ({"nodes": ["nowhere"]}, "nodes has 'nowhere'; expected a host and a port such as 10.0.0.7:8836"),
    ({"nodes": ["a:1", "a:1"]}, "nodes names one of them twice"),
    ({"nodes": ["a:1", "b:1", "c:1"]}, "this router has room for 2 (pipeline.max_nodes)"),
]


def test_what_is_wrong_is_refused_and_changes_nothing(router, places):
    put(router, {"nodes": places[:2]})
    for body, why in WRONG:
        answer = put(router, body)
        assert (answer.status_code, why in answer.json()["error"]["message"]) == (400, True), answer.text
    assert [node for node, *_ in states(put(router, {"nodes": places[:2]}))] == places[:2]
    assert router.operators.get(NODES).headers["allow"] == "PUT"


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text() | st.from_regex(r"[a-c:.\[\]0-9%-]{0,9}"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["nodes", "node", ""]), inner),
    max_leaves=8,
)


def test_no_body_disturbs_it(router, places):
    @examples(150)
    @given(
        st.binary(max_size=60) | JSON.map(lambda value: json.dumps({"nodes": value}).encode()) | JSON.map(json.dumps)
    )
    def send(body):
        answer = put(router, body if isinstance(body, bytes) else body.encode())
        assert answer.status_code in (200, 400), answer.text

    send()
    assert put(router, {"nodes": places[:1]}).status_code == 200
    assert not [line for line in router.front.errors if "Traceback" in line]


def test_it_is_for_operators_alone(serve, certificates):
    keys = [KEY, f"{OPERATOR} operator"]
    served = serve(wired=False, certificates=certificates, replicas=2, metrics_port=0, api_keys=keys)
    operators = f"http://127.0.0.1:{served.metrics_port}{NODES}"
    bearer = {"authorization": f"Bearer {KEY}"}
    assert httpx.put(operators, json={"nodes": []}).status_code == 401
    assert httpx.put(operators, json={"nodes": []}, headers=bearer).status_code == 200, "from this machine"
    for elsewhere in ("x-forwarded-for", "forwarded", "origin"):
        answer = httpx.put(operators, json={"nodes": []}, headers={**bearer, elsewhere: "10.0.0.9"})
        assert (answer.status_code, "operator's API key" in answer.text) == (403, True), elsewhere
    mine = {"authorization": f"Bearer {OPERATOR}", "x-forwarded-for": "10.0.0.9"}
    assert httpx.put(operators, json={"nodes": []}, headers=mine).status_code == 200
    assert served.http.put(NODES, json={"nodes": []}, headers=bearer).status_code == 404


def test_without_a_port_for_operators_it_is_nowhere(serve, certificates):
    served = serve(wired=False, certificates=certificates, replicas=2)
    answer = served.http.put(NODES, json={"nodes": []})
    assert (answer.status_code, "set pipeline.metrics_port" in answer.text) == (404, True)


def test_a_server_that_is_no_router_has_none(serve):
    served = serve(metrics_port=0)
    answer = httpx.put(f"http://127.0.0.1:{served.metrics_port}{NODES}", json={"nodes": []})
    assert (answer.status_code, "unknown path" in answer.text) == (404, True)
