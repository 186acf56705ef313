"""The front and what is behind it: coalescing, full rings, refusals, stages that are not ready, die or return."""

from __future__ import annotations

import concurrent.futures
import json
import os
import select
import signal
import time

import pytest

from tests.pipeline.front.conftest import post, read_all, read_until

STREAM = "/models/llama2/generate_stream"


def test_tokens_that_are_ready_together_keep_their_own_lines(shared):
    """A burst is one record batch behind, and one chunk of HTTP in front."""
    with shared.connect() as connection:
        body = {"inputs": "a b c @burst", "parameters": {"max_new_tokens": 50}}
        connection.sendall(post(body, STREAM, headers="Connection: close\r\n"))
        answer = read_all(connection)
    chunks = answer.partition(b"\r\n\r\n")[2].split(b"\r\n")
    lines = b"".join(chunks[1::2]).splitlines()
    assert [json.loads(line)["data"]["tokens"]["id"] for line in lines] == [100 + i for i in range(50)]
    assert len(chunks) // 2 < 20


def test_many_at_once_each_gets_its_own(shared):
    def ask(i):
        words = f"w{i} x{i} y{i}"
        if i % 2:
            return shared.generate(words, max_new_tokens=3).json()["generated_text"] == words
        text = shared.complete(words, max_tokens=3, stream=True).text
        return all(f"{letter}{i}" in text for letter in "wxy")

    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        assert all(pool.map(ask, range(200)))


def test_request_ids_are_unique(shared):
    ids = [shared.complete("a", max_tokens=1).headers["x-request-id"] for _ in range(20)]
    assert len(set(ids)) == 20


def test_preprocess_is_woken_as_soon_as_a_post_begins(serve):
    """If there is no other request; before the body is there."""
    served = serve()
    served.end_generation()
    served.wire(stopped=True)
    woken = served.rings["requests"].data_fd()
    with served.connect() as connection, served.connect() as other:
        connection.sendall(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n")
        read_until(connection, b"}")
        with pytest.raises(BlockingIOError):
            os.eventfd_read(woken)
        connection.sendall(post({"inputs": "a b"})[:-4])
        assert select.select([woken], [], [], 20)[0]
        os.eventfd_read(woken)
        connection.sendall(post({"inputs": "a b"})[-4:])
        while not served.rings["requests"].snapshot().producer.index:
            time.sleep(0.01)
        if select.select([woken], [], [], 0)[0]:
            os.eventfd_read(woken)
        other.sendall(post({"inputs": "c d"})[:-4] + b"x")
        assert not select.select([woken], [], [], 0.1)[0]


# ---- no room -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
def test_a_full_queue(shared, stream):
    answer = shared.generate("@refuse=429", stream=stream)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
    assert answer.json()["error"]["type"] == "overloaded_error"


def test_a_full_ring_is_429_and_recovers(serve):
    served = serve(ring_bytes=4096)
    served.peer.process.send_signal(signal.SIGSTOP)
    try:
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            asked = [pool.submit(served.generate, "word " * 50, max_new_tokens=1) for _ in range(16)]
            deadline = time.monotonic() + 10
            while not any(future.done() for future in asked):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            served.peer.process.send_signal(signal.SIGCONT)
            statuses = [future.result().status_code for future in asked]
    finally:
        served.peer.process.send_signal(signal.SIGCONT)
    assert set(statuses) == {200, 429}
    assert served.generate("a", max_new_tokens=1).status_code == 200


def test_a_prompt_longer_than_the_ring_takes(serve):
    served = serve(ring_bytes=4096)
    assert served.generate("x" * 5000).status_code == 413


def test_cancellations_wait_for_room_and_are_not_lost(serve):
    served = serve(ring_bytes=4096)
    connections = [served.connect() for _ in range(40)]
    requests = set()
    for connection in connections:
        connection.sendall(post({"inputs": "@hang"}, STREAM))
        requests.add(served.peer.expect("submit")["submit"])
    served.peer.process.send_signal(signal.SIGSTOP)
    for connection in connections:
        connection.close()
    time.sleep(0.3)
    served.peer.process.send_signal(signal.SIGCONT)
    assert {served.peer.expect("cancel") for _ in requests} == requests


def test_too_many_in_flight(serve):
    served = serve(max_queue=1, max_rows=1)
    connections = [served.connect() for _ in range(66)]
    for connection in connections:
        connection.sendall(post({"inputs": "@hang"}, STREAM))
        served.peer.expect("submit")
    assert served.generate("a").status_code == 429
    for connection in connections:
        connection.close()


# ---- stages that are not there -----------------------------------------------------------------------------


def test_not_ready(serve):
    """Before the first rings nobody is served; later, requests are taken whatever a stage says of itself."""
    served = serve(wired=False)
    for answer in (served.generate("a"), served.complete("a", stream=True), served.http.get("/ready")):
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert "being loaded" in answer.json()["error"]["message"]
    assert served.http.get("/health").json() == {"status": "alive"}
    served.wire()
    assert served.http.get("/ready").status_code == 200
    served.obey("unready")
    assert served.http.get("/ready").status_code == 503
    assert served.generate("a", max_new_tokens=1).status_code == 200


def test_a_time_limit(serve):
    served = serve(request_timeout_s=0.3)
    answer = served.generate("@hang")
    assert (answer.status_code, answer.json()["error"]["type"]) == (504, "timeout_error")
    served.peer.expect("cancel")
    text = served.complete("a b @pace=0.02", max_tokens=4000, stream=True).text
    assert text.endswith("data: [DONE]\n\n")
    assert "longer than 0.3 s" in text


# ---- the end -----------------------------------------------------------------------------------------------


def test_a_drain_finishes_what_has_begun(serve):
    served = serve()
    with served.connect() as connection:
        connection.sendall(post({"inputs": "a b @pace=0.02", "parameters": {"max_new_tokens": 30}}, STREAM))
        data = read_until(connection, b"generated_text")
        served.drain()
        data += read_all(connection)
    assert data.count(b'"event"') == 30
    assert served.front.wait() == 0
    with pytest.raises(ConnectionRefusedError):
        served.connect()


def test_a_signal_while_it_drains_ends_at_once(serve):
    served = serve(drain_timeout_s=60)
    with served.connect() as connection:
        connection.sendall(post({"inputs": "@hang"}, STREAM))
        served.peer.expect("submit")
        served.drain()
        served.front.log("draining")
        assert served.front.process.poll() is None
        served.end()
        assert b"the server is shutting down" in read_all(connection)
    assert served.front.wait() == 0


def test_the_grace_period_ends(serve):
    served = serve(drain_timeout_s=0.3)
    with served.connect() as early, served.connect() as late:
        early.sendall(post({"inputs": "@hang"}, STREAM))
        late.sendall(post({"inputs": "a @pace=0.02", "parameters": {"max_new_tokens": 4000}}, STREAM))
        read_until(late, b"generated_text")
        served.peer.expect("submit")
        served.drain()
        assert b"the server is shutting down" in read_until(early, b"}}")
        assert b"predict_failed" in read_all(late)
    assert served.front.wait() == 0
