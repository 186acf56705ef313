"""What an API key may do, by HTTP: its share, its limits, and who may cancel what."""

import json
import threading
import time

import httpx
import pytest

from pipeline.launcher.api_keys import digest
from pipeline.wire.api_key import ApiKey
from tests.pipeline.front.conftest import Served

PLAIN, LIMITED, URGENT, OPERATOR = (f"sk-{name}-0123456789" for name in ("plain", "limited", "urgent", "operator"))


def bearer(key):
    return {"authorization": f"Bearer {key}"}


@pytest.fixture(scope="module")
def served():
    lines = [
        PLAIN,
        f"{LIMITED} concurrent=1 requests_per_minute=3 tokens_per_minute=40",
        f"{URGENT} weight=2.5 priority=-2",
        f"{OPERATOR} operator",
    ]
    served = Served(1 << 20, api_keys=lines)
    yield served
    served.stop()


def complete(served, key, prompt="a b", headers=None, **body):
    return served.http.post(
        "/v1/completions", json={"prompt": prompt, "max_tokens": 3, **body}, headers=bearer(key) | (headers or {})
    )


def number(key):
    return ApiKey(digest(key.encode())).number


# ---- shares --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "priority", "owner"),
    [
        (PLAIN, 0, (1.0, 0)),
        (PLAIN, 7, (1.0, 7)),
        (URGENT, 0, (2.5, -2)),
        (URGENT, 3, (2.5, 1)),
        (OPERATOR, -5, (1.0, -5)),
    ],
)
def test_the_share_of_a_request_goes_with_it_and_the_key_does_not(served, key, priority, owner):
    assert complete(served, key, f"share{priority}{key[-12]} b", priority=priority).status_code == 200
    seen = served.submitted(f"share{priority}{key[-12]}")
    assert seen["owner"] == [number(key), *owner]
    assert key not in str(seen)


def test_a_priority_before_the_keys_own_is_refused(served):
    answer = complete(served, URGENT, priority=-1)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "priority"
    assert "it is added to the API key's own" in answer.json()["error"]["message"]


def test_without_keys_a_priority_is_taken_as_it_is(shared):
    assert shared.complete("nokeys b", max_tokens=1, priority=-9).status_code == 200
    assert shared.submitted("nokeys")["owner"] == [0, 1.0, -9]
    assert shared.complete("nokeys2 b", max_tokens=1).status_code == 200
    assert shared.submitted("nokeys2")["owner"] == [0, 1.0, 0]
    assert shared.complete("a", max_tokens=1, priority=1001).status_code == 400


# ---- limits --------------------------------------------------------------------------------------------------------


def test_limits_and_what_is_left_of_them(served):
    answer = complete(served, LIMITED, "a b c d @wait=0", max_tokens=2)
    told = {name: value for name, value in answer.headers.items() if name.startswith("x-ratelimit")}
    assert answer.status_code == 200
    assert {name: told[f"x-ratelimit-{name}"] for name in ("limit-requests", "limit-tokens")} == {
        "limit-requests": "3", "limit-tokens": "40",
    }  # fmt: skip
    assert told["x-ratelimit-remaining-requests"] == "2"
    assert told["x-ratelimit-reset-requests"] == "20s"
    assert 30 <= int(told["x-ratelimit-remaining-tokens"]) <= 40
    assert complete(served, PLAIN).headers.get("x-ratelimit-limit-requests") is None
    assert served.http.get("/v1/models", headers=bearer(LIMITED)).headers.get("x-ratelimit-limit-requests") is None

    refused = complete(served, LIMITED, max_tokens=39)
    assert refused.status_code == 429
    assert refused.json()["error"] | {"message": ""} == {
        "message": "", "type": "tokens", "param": None, "code": "rate_limit_exceeded",
    }  # fmt: skip
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert int(refused.headers["x-ratelimit-remaining-tokens"]) < 39

    assert complete(served, LIMITED, max_tokens=1).status_code == 200
    used_up = complete(served, LIMITED, max_tokens=1)
    assert (used_up.status_code, used_up.json()["error"]["type"]) == (429, "requests")
    assert 1 <= int(used_up.headers["retry-after"]) <= 20
    messages = served.http.post("/v1/messages", json={}, headers=bearer(LIMITED))
    assert (messages.status_code, messages.json()["error"]["type"]) == (429, "rate_limit_error")


# ---- cancelling ----------------------------------------------------------------------------------------------------


class Asking(threading.Thread):
    """A request that is not answered until it is cancelled."""

    def __init__(self, served, key, name, path="/v1/completions", **body):
        super().__init__()
        self.served, self.path = served, path
        self.body = {"prompt": f"{name} @mute", "max_tokens": 3} | body
        self.headers = bearer(key) | {"x-request-id": name}
        self.start()
        self.number = served.submitted(name)["submit"]

    def run(self):
        self.answer = httpx.post(self.served.url + self.path, json=self.body, headers=self.headers, timeout=20)

    def ended(self):
        self.join(20)
        return self.answer


def cancel(served, key, name, kind="requests"):
    return served.http.post(f"/v1/{kind}/{name}/cancel", headers=bearer(key))


def test_a_request_is_cancelled_by_its_id(served):
    asking = Asking(served, PLAIN, "mine")
    answer = cancel(served, PLAIN, "mine")
    assert (answer.status_code, answer.json()) == (200, {"id": "mine", "object": "request", "cancelled": 1})
    ended = asking.ended()
    assert ended.status_code == 499
    assert ended.json()["error"]["code"] == "request_cancelled"
    assert served.peer.expect("cancel") == asking.number
    assert cancel(served, PLAIN, "mine").status_code == 404


def test_only_the_same_key_and_operators_may(served):
    asking = Asking(served, PLAIN, "theirs")
    refused, unknown = cancel(served, URGENT, "theirs"), cancel(served, URGENT, "nothing")
    assert refused.status_code == unknown.status_code == 404
    assert refused.json() == unknown.json()
    assert served.http.post("/v1/requests/theirs/cancel").status_code == 401
    assert cancel(served, OPERATOR, "theirs").json()["cancelled"] == 1
    assert asking.ended().status_code == 499


def test_a_stream_is_cancelled_by_the_id_in_its_answer(served):
    body = {"prompt": "a b c @pace=0.02", "max_tokens": 4000, "stream": True}
    with served.http.stream("POST", "/v1/completions", json=body, headers=bearer(PLAIN)) as stream:
        lines = stream.iter_lines()
        name = json.loads(next(lines).removeprefix("data: "))["id"]
        with httpx.Client(base_url=served.url) as other:
            answer = other.post(f"/v1/requests/{name}/cancel", headers=bearer(PLAIN))
        assert answer.json() == {"id": name, "object": "request", "cancelled": 1}
        *_, last, done = [line for line in lines if line]
    assert done == "data: [DONE]"
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "request_cancelled"


def test_openai_s_words_for_a_response(served):
    body = {"input": "response @mute", "prompt": None, "max_tokens": None}
    asking = Asking(served, PLAIN, "response", "/v1/responses", **body)
    answer = cancel(served, PLAIN, "response", "responses")
    assert answer.json() == {"id": "response", "object": "response", "status": "cancelled"}
    assert asking.ended().status_code == 499


def test_what_is_cancelled_counts_as_that(served):
    before = served.metric("ringserve_requests_total", outcome="cancelled")
    asking = Asking(served, PLAIN, "counted")
    cancel(served, PLAIN, "counted")
    asking.ended()
    assert served.metric("ringserve_requests_total", outcome="cancelled") == before + 1


@pytest.mark.parametrize("path", ["/v1/requests/x/cancel", "/v1/responses/x/cancel"])
def test_other_methods_and_bodies(shared, path):
    assert shared.http.get(path).status_code == 405
    assert shared.http.post(path, content=b"{").status_code == 404
    assert shared.http.post(path.replace("/x/", f"/{'x' * 400}/")).status_code == 404
    assert shared.http.post(path.replace("/x/", "//")).status_code == 404


# ---- deadlines -----------------------------------------------------------------------------------------------------


def test_an_answer_that_is_late_is_broken_off(shared):
    begun = time.monotonic_ns()
    before = shared.metric("ringserve_deadlines_total", outcome="missed")
    answer = shared.complete("late1 @mute", max_tokens=3, timeout_ms=100)
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "deadline_exceeded")
    assert "within the 100 ms" in answer.json()["error"]["message"]
    seen = shared.submitted("late1")
    assert seen["deadline_ns"] == seen["arrival_ns"] + 100_000_000 > begun
    assert shared.peer.expect("cancel") == seen["submit"]
    assert shared.metric("ringserve_deadlines_total", outcome="missed") == before + 1


def test_a_stream_that_is_late_ends_with_an_error(shared):
    body = {"prompt": "late2 b @pace=0.02", "max_tokens": 4000, "stream": True}
    answer = shared.http.post("/v1/completions", json=body, headers={"x-request-timeout-ms": "1000"})
    lines = [line for line in answer.text.splitlines() if line]
    assert len(lines) > 2
    assert json.loads(lines[-2].removeprefix("data: "))["error"]["code"] == "deadline_exceeded"


def test_the_earlier_deadline_counts(shared):
    headers = {"x-request-timeout-ms": "60000"}
    body = {"prompt": "late3", "max_tokens": 1, "timeout_ms": 70000}
    assert shared.http.post("/v1/completions", json=body, headers=headers).status_code == 200
    seen = shared.submitted("late3")
    assert seen["deadline_ns"] - seen["arrival_ns"] == 60_000_000_000
    assert shared.complete("late4", max_tokens=1).status_code == 200
    assert shared.submitted("late4")["deadline_ns"] == 0


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "", "x", "86400001", "1e3", "9" * 400])
def test_a_deadline_that_is_none(shared, value):
    headers = {"x-request-timeout-ms": value}
    answer = shared.http.post("/v1/completions", json={"prompt": "a"}, headers=headers)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "x-request-timeout-ms")


def test_what_the_queue_cannot_serve_in_time(shared):
    before = shared.metric("ringserve_deadlines_total", outcome="refused")
    answer = shared.complete("a @refuse=429 @code=deadline_unreachable", max_tokens=1, timeout_ms=50)
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "deadline_unreachable")
    assert answer.headers["retry-after"] == "1"
    assert shared.metric("ringserve_deadlines_total", outcome="refused") == before + 1
