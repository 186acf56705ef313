"""Where a request's time went, and what its client's key has used."""

from __future__ import annotations

import json
import re

import pytest

from pipeline.launcher.api_keys import digest
from pipeline.stats import KEY_NAME
from tests.pipeline.front.conftest import post

ASK = {"x-ringserve-timings": "1"}
TIMES = ["queue_time", "prompt_time", "completion_time", "total_time", "device_time", "host_time"]
ONE, OTHER = "sk-one", "sk-other"
WORDS = (
    "a b c @wait=0.1 @pace=0.02 @work"  # a step of 4 tokens and 20 µs before each token; 5 prompt tokens, 2 cached
)


def named(key):
    return digest(key.encode())[:KEY_NAME]


def bearer(key):
    return {"authorization": f"Bearer {key}"}


def right(usage):
    """The parts are what they say of the whole."""
    assert usage["queue_time"] == 0.002
    assert usage["prompt_time"] >= 0.09
    assert usage["completion_time"] >= 0.07
    assert usage["total_time"] >= usage["queue_time"] + usage["prompt_time"] + usage["completion_time"] - 0.001
    assert usage["device_time"] == pytest.approx(5 * 20e-6, abs=20e-6)
    assert usage["host_time"] == pytest.approx(
        usage["prompt_time"] + usage["completion_time"] - usage["device_time"], abs=1e-5
    )
    return True


def test_times_in_the_usage_of_who_asks(shared):
    body = {"max_tokens": 5}
    for path, more in (
        ("/v1/completions", {"prompt": WORDS}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hello @wait=0.1 @pace=0.02 @work @x"}]}),
    ):
        plain = shared.http.post(path, json={**body, **more})
        assert not set(TIMES) & set(plain.json()["usage"])
        assert "server-timing" not in plain.headers
        asked = shared.http.post(path, json={**body, **more}, headers=ASK)
        assert right(asked.json()["usage"])
        assert asked.json()["usage"]["prompt_tokens_details"] == {"cached_tokens": 2}


def test_times_in_the_last_event_of_a_stream(shared):
    body = {"prompt": WORDS, "max_tokens": 5, "stream": True, "stream_options": {"include_usage": True}}
    answer = shared.http.post("/v1/completions", json=body, headers=ASK)
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    assert right(events[-1]["usage"])
    assert all(event["usage"] is None for event in events[:-1])
    assert re.search(r"queue;dur=2\.000, prefill;dur=\d+\.\d+, decode;dur=0\.000", answer.headers["server-timing"])
    plain = shared.http.post("/v1/completions", json=body)
    assert not set(TIMES) & set(json.loads(plain.text.splitlines()[-4][6:])["usage"])


@pytest.mark.parametrize("path", ["/models/llama2/generate", "/api/chat", "/v1/responses", "/v1/messages"])
def test_a_header_in_every_api(shared, path):
    messages = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 3, "stream": False}
    body = {"inputs": "a"} if "generate" in path else {"input": "a"} if "responses" in path else messages
    if "api" in path:
        del body["max_tokens"]
    answer = shared.http.post(path, json=body, headers=ASK)
    assert answer.status_code == 200, answer.text
    entries = dict(entry.split(";dur=") for entry in answer.headers["server-timing"].split(", "))
    assert list(entries) == ["queue", "prefill", "decode", "device", "host", "total"]
    assert float(entries["total"]) > float(entries["queue"]) == 2


def test_a_key_sees_what_it_has_used_and_operators_see_all(serve):
    served = serve(api_keys=[ONE, OTHER], metrics_port=0)
    for key, body in ((ONE, {"prompt": WORDS, "max_tokens": 5}), (OTHER, {"prompt": "a b", "max_tokens": 2, "n": 3})):
        assert served.http.post("/v1/completions", json=body, headers=bearer(key)).status_code == 200
    own = served.http.get("/v1/usage", headers=bearer(ONE)).json()
    assert own["object"] == "list"
    (used,) = own["data"]
    assert used.pop("device_seconds") == pytest.approx((3 + 4) * 5e-6)  # of every step a token's share is 5 µs
    assert used == {
        "object": "usage", "key": named(ONE), "requests": 1, "prompt_tokens": 5, "cached_tokens": 2,
        "completion_tokens": 5,
    }  # fmt: skip
    (others,) = served.http.get("/v1/usage", headers={"x-api-key": OTHER}).json()["data"]
    assert (others["requests"], others["prompt_tokens"], others["completion_tokens"]) == (3, 5, 6)
    operators = f"http://127.0.0.1:{served.metrics_port}"
    every = served.http.get(f"{operators}/v1/usage", headers=bearer(OTHER)).json()["data"]
    assert {each["key"] for each in every} == {named(ONE), named(OTHER)}
    text = served.http.get(f"{operators}/metrics").text
    assert f'ringserve_key_generated_tokens_total{{key="{named(OTHER)}"}} 6.0' in text
    assert f'ringserve_key_prompt_tokens_total{{key="{named(ONE)}"}} 5.0' in text
    assert f'ringserve_key_device_seconds_total{{key="{named(ONE)}"}} 3.5e-05' in text
    assert not any(secret in text for secret in (ONE, OTHER, digest(ONE.encode())))
    for url in ("/v1/usage", f"{operators}/v1/usage"):
        assert served.http.get(url).status_code == 401


def test_who_needs_no_key_to_see_metrics_sees_no_keys(serve):
    served = serve(api_keys=[ONE, OTHER])
    for key in (ONE, OTHER):
        body = {"prompt": WORDS, "max_tokens": 5}
        assert served.http.post("/v1/completions", json=body, headers=bearer(key)).status_code == 200
    text = served.http.get("/metrics").text
    assert 'ringserve_key_generated_tokens_total{key=""} 10.0' in text
    assert named(ONE) not in text
    assert named(OTHER) not in text


def test_requests_that_end_otherwise_are_counted_too(serve):
    served = serve()
    assert served.http.get("/v1/usage").json()["data"][0]["requests"] == 0
    served.complete("@refuse=429")
    served.complete("a b c @after=2 @reason=failed", max_tokens=5)
    served.http.post("/v1/completions", json={"prompt": "x", "temperature": -1})
    (used,) = served.http.get("/v1/usage").json()["data"]
    assert (used["key"], used["requests"], used["completion_tokens"]) == (None, 3, 1)


def test_who_goes_away_while_the_prompt_is_computed_pays_for_that(serve):
    served = serve()
    with served.connect() as connection:
        connection.sendall(post({"inputs": "@hang"}))
        served.peer.expect("submit")
        served.generate("a", max_new_tokens=1)  # the other has its row when this one is answered
        (before,) = served.http.get("/v1/usage").json()["data"]
        served.obey("steps 10")  # 40 tokens
    served.peer.expect("cancel")
    (after,) = served.http.get("/v1/usage").json()["data"]
    used = {name: after[name] - before[name] for name in after if name not in ("object", "key")}
    assert used.pop("device_seconds") == pytest.approx(3 * 5e-6)
    assert used == {"requests": 1, "prompt_tokens": 5, "cached_tokens": 2, "completion_tokens": 0}
