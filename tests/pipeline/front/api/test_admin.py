"""Asking for other weights, with the test as the launcher; whole servers are in tests/server/test_weights.py."""

from __future__ import annotations

import concurrent.futures

import pytest

from tests.pipeline.front.conftest import Served
from tests.pipeline.front.http.test_access import bearer

FOLDER = "/models/new"
MESSAGES = [{"role": "user", "content": "a"}]
TIMED = {"x-ringserve-timings": "1"}
OPERATOR, CLIENT = "sk-admin-0123456789", "sk-alice-0123456789"


@pytest.fixture
def pool():
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.fixture
def served(serve):
    served = serve(wired=False)
    served.wire(weights="old")
    return served


def report(call, outcome="under way", state="replacing", error=""):
    change = {"call": call, "folder": FOLDER, "weights": "new", "replica": 0, "done": []}
    return {"state": state, "replicas": ["old"], "change": {**change, "outcome": outcome, "error": error}}


def ask(served, **more):
    return served.http.post("/admin/weights", json={"folder": FOLDER, **more})


def asked(served):
    """The launcher gets to know it."""
    fields = served.hear("weights")
    assert fields["folder"] == FOLDER
    return fields["call"]


def test_it_is_answered_when_the_folder_has_been_looked_at(served, pool):
    answer = pool.submit(ask, served)
    call = asked(served)
    served.channel.send("weights", **report(call, state="checking"))
    served.channel.send("weights", **report(call - 1, "refused", "idle", "it is another one's"))
    assert not answer.done()
    served.channel.send("weights", **report(call))
    assert answer.result(20).status_code == 202
    told = answer.result().json()
    assert told["state"] == "replacing"
    assert told["replicas"] == [{"replica": 0, "weights": "old", "serves": True}]
    assert (told["change"]["folder"], told["change"]["outcome"]) == (FOLDER, "under way")
    assert served.http.get("/admin/weights").json() == told


@pytest.mark.parametrize(
    ("outcome", "error", "status"),
    [("done", "", 200), ("rolled back", "no memory", 500), ("refused", "differs", 400)],
)
def test_with_wait_it_is_answered_when_all_is_over(served, pool, outcome, error, status):
    answer = pool.submit(ask, served, wait=True)
    call = asked(served)
    served.channel.send("weights", **report(call, state="checking"))
    if outcome != "refused":
        served.channel.send("weights", **report(call))
    served.channel.send("weights", **report(call, outcome, "idle", error))
    assert answer.result(20).status_code == status
    if error:
        assert error in answer.result().json()["error"]["message"]


def test_while_another_one_is_under_way_it_is_refused(served, pool):
    answer = pool.submit(ask, served)
    call = asked(served)
    served.channel.send("weights", **report(1), busy={"call": call, "why": "others are being loaded"})
    assert answer.result(20).status_code == 409
    assert answer.result().json()["error"]["message"] == "others are being loaded"


@pytest.mark.parametrize(
    "body", [{}, {"folder": "models/new"}, {"folder": 3}, {"folder": ""}, {"folder": "/x" * 4096}]
)
def test_what_is_no_folder_does_not_reach_the_launcher(served, body):
    answer = served.http.post("/admin/weights", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "folder"


def test_only_operators_may(serve):
    served = serve(api_keys=[f"{OPERATOR} operator", CLIENT], metrics_port=0)
    operators = f"http://127.0.0.1:{served.metrics_port}/admin/weights"
    assert served.http.get("/admin/weights", headers=bearer(OPERATOR)).status_code == 404  # it has a port of its own
    for key, status in ((OPERATOR, 200), (CLIENT, 403)):
        assert served.http.get(operators, headers=bearer(key)).status_code == status
    assert served.http.get(operators).status_code == 401
    assert served.http.post(operators, json={"folder": FOLDER}, headers=bearer(CLIENT)).status_code == 403


def test_a_page_in_a_browser_may_not(served):
    answer = served.http.post("/admin/weights", json={"folder": FOLDER}, headers={"origin": "http://127.0.0.1"})
    assert answer.status_code == 403


@pytest.mark.parametrize("header", ["x-forwarded-for", "forwarded"])
def test_whom_a_proxy_on_this_machine_asks_for_may_not(served, header):
    for path in ("/admin/weights", "/debug/trace?seconds=0.1"):
        assert served.http.get(path, headers={header: "for=10.0.0.9"}).status_code == 403
        assert served.http.get(path).status_code == 200


def test_a_replica_is_asked_and_answers(served):
    served.channel.send("probe", replica=0, generation=7)
    assert served.submitted("0")["max_tokens"] == 1
    assert served.hear("answered") == {"replica": 0, "generation": 7, "why": ""}


def test_no_request_reaches_new_weights_before_they_have_answered(served, pool):
    """Neither a stream that was under way, nor one that comes meanwhile."""

    def complete(prompt):
        return served.http.post("/v1/completions", json={"prompt": prompt, "max_tokens": 6}, headers=TIMED)

    under_way = pool.submit(complete, "a b @after=6 @die=3")
    served.peer.process.wait(20)
    served.end_generation()
    served.wire(weights="new", on_trial=True)
    later = pool.submit(complete, "c d")
    assert served.http.get("/ready").status_code == 503
    told = served.http.get("/admin/weights").json()
    assert told["replicas"] == [{"replica": 0, "weights": "new", "serves": False}]
    served.channel.send("probe", replica=0, generation=2)
    assert served.hear("answered") == {"replica": 0, "generation": 2, "why": ""}
    assert served.peer.expect("submit")["max_tokens"] == 1  # the first that came
    served.channel.send("proven", replica=0, generation=1)  # of one that has ended
    assert served.http.get("/ready").status_code == 503
    assert not under_way.done()
    assert not later.done()
    served.channel.send("proven", replica=0, generation=2)
    assert under_way.result(20).json()["usage"]["weights"] == [[{"from": 0, "id": "old"}, {"from": 3, "id": "new"}]]
    assert later.result(20).json()["usage"]["weights"] == [[{"from": 0, "id": "new"}]]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/completions", {"prompt": "a", "deterministic": True}, 400),
        ("/v1/chat/completions", {"messages": MESSAGES, "deterministic": True}, 400),
        ("/v1/responses", {"input": "a", "deterministic": True}, 400),
        ("/v1/messages", {"messages": MESSAGES, "model": "tiny", "max_tokens": 2, "deterministic": True}, 400),
        ("/models/llama2/generate", {"inputs": "a", "parameters": {"deterministic": True}}, 422),
        ("/api/chat", {"messages": MESSAGES, "model": "tiny", "options": {"deterministic": True}}, 400),
    ],
)
def test_an_engine_that_can_not_be_deterministic_is_not_waited_for(unable, path, body, status):
    """The model need not even be there."""
    answer = unable.http.post(path, json=body)
    assert (answer.status_code, "it is the engine's fault" in answer.text) == (status, True), answer.text


@pytest.fixture(scope="module")
def unable():
    served = Served(1 << 20, wired=False, not_deterministic="it is the engine's fault")
    yield served
    served.stop()


def test_a_text_knows_which_weights_have_computed_its_tokens(served, pool):
    body = {"max_tokens": 6, "ignore_eos": True}
    ask = lambda: served.http.post("/v1/completions", json={"prompt": "a b @pace=0.05", **body}, headers=TIMED)  # noqa: E731
    assert ask().json()["usage"]["weights"] == [[{"from": 0, "id": "old"}]]
    assert ask().headers["x-ringserve-weights"] == "0=old"
    answer = pool.submit(
        lambda: served.http.post("/v1/completions", json={"prompt": "a b @after=6 @die=3", **body}, headers=TIMED)
    )
    served.peer.process.wait(20)
    served.end_generation()
    served.wire(weights="new")
    assert answer.result(20).json()["usage"]["weights"] == [[{"from": 0, "id": "old"}, {"from": 3, "id": "new"}]]
    assert answer.result().headers["x-ringserve-weights"] == "0=old;3=new"
    assert served.metric("ringserve_weights_info", replica="0", weights="new") == 1
