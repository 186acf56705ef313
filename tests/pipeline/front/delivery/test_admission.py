"""What the front says while it drains, and while the launcher has something to say of a stage."""

from __future__ import annotations

import threading
import time

import pytest

from pipeline.stats import FrontCounter, StageState, StatsReader, Supervision


def test_while_it_drains_it_accepts_connections_and_refuses_requests(serve):
    served = serve()
    answers = []

    def ask():
        answers.append(served.generate("a b @pace=0.02", max_new_tokens=60))

    asking = threading.Thread(target=ask)
    asking.start()
    served.peer.expect("submit")
    served.drain()
    served.front.log("draining")
    for refused in (served.generate("c"), served.complete("c")):
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert refused.json()["error"]["message"] == "the server is shutting down"
    assert served.http.get("/ready").status_code == 503
    assert served.http.get("/health").status_code == 200
    asking.join(20)
    assert answers[0].json()["generated_tokens"] == 60
    served.http.close()
    assert served.front.wait() == 0


@pytest.mark.parametrize("state", [StageState.HUNG, StageState.RESTARTING])
def test_health_names_stages_that_do_not_get_on(serve, state):
    served = serve()
    launcher = Supervision(served.stats)
    launcher.set_state("sampling", state)
    answer = served.http.get("/health")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["error"]["message"] == f"sampling is {state.name.lower()}"
    launcher.set_state("front", state)
    assert "front is" in served.http.get("/health").json()["error"]["message"]
    for stage in ("sampling", "front"):
        launcher.set_state(stage, StageState.OK)
    assert served.http.get("/health").json() == {"status": "alive"}


def test_loading_is_getting_on(serve):
    served = serve()
    served.obey("unready")
    assert served.http.get("/health").status_code == 200
    assert served.http.get("/ready").status_code == 503


def test_metrics_tell_of_generations_and_restarts(serve):
    served = serve()
    launcher = Supervision(served.stats)
    launcher.set_generation(0, 3)
    launcher.add_restart("inference")
    launcher.add_restart("inference")
    assert served.metric("ringserve_generation", replica="0") == 3
    assert served.metric("ringserve_restarts_total", stage="inference", replica="0") == 2
    assert served.metric("ringserve_restarts_total", stage="front") == 0
    assert served.metric("ringserve_gc_pause_max_seconds", stage="front") == 0


def test_the_event_loop_beats(serve):
    served = serve()
    stats = StatsReader(served.stats)
    before, deadline = stats.counters(FrontCounter)["beat"], time.monotonic() + 20
    while stats.counters(FrontCounter)["beat"] == before:
        assert time.monotonic() < deadline
        time.sleep(0.02)
