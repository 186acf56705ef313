"""/metrics, the trace, timing headers and the log."""

from __future__ import annotations

import json
import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pipeline.stats import RequestHistogram, edges
from tests.pipeline.front.conftest import post, read_until

HEADER = {"x-ringserve-timings": "1"}
STEP_PARTS = ("schedule", "launch", "device", "publish", "sample", "wait-for-descriptor", "feedback")


def families(served):
    return {family.name: family for family in text_string_to_metric_families(served.http.get("/metrics").text)}


def test_requests_by_outcome(serve):
    served = serve()
    for prompt in (
        "a",
        "a @after=1 @reason=eos",
        "a @after=1 @reason=stop",
        "a @after=1 @reason=failed",
        "@refuse=429",
        "@refuse=400:prompt",
    ):
        served.generate(prompt, max_new_tokens=3)
    served.generate("x", temperature=-1)
    with served.connect() as connection:
        connection.sendall(post({"inputs": "@hang"}))
        while served.peer.expect("submit")["prompt"] != "@hang":
            pass
        served.generate("a", max_new_tokens=3)  # the other has its row when this one is answered
    served.peer.expect("cancel")
    counts = {s.labels["outcome"]: s.value for s in families(served)["ringserve_requests"].samples}
    assert counts == {"length": 2, "eos": 1, "stop": 1, "failed": 1, "cancelled": 1, "refused": 2, "rejected": 1}
    assert served.metric("ringserve_generation_tokens_total") == 3 + 1 + 1 + 3
    assert served.metric("ringserve_prompt_tokens_total") == 6 * 5  # of the one that was cancelled, too


def test_numbers_of_the_other_stages(serve):
    served = serve()
    served.obey("numbers")
    wanted = {
        "ringserve_num_requests_waiting": 12, "ringserve_num_requests_running": 13, "ringserve_kv_blocks_used": 14,
        "ringserve_kv_blocks": 15, "ringserve_kv_cache_usage": 14 / 15, "ringserve_kv_blocks_cached": 16,
        "ringserve_prefix_cache_queries_total": 17, "ringserve_prefix_cache_hits_total": 18,
        "ringserve_prefix_cache_hit_rate": 18 / 17, "ringserve_num_preemptions_total": 19,
        "ringserve_admitted_requests_total": 20, "ringserve_cancelled_requests_total": 21,
        "ringserve_greedy_steps_total": 5, "ringserve_ready": 1,
    }  # fmt: skip
    assert {name: served.metric(name) for name in wanted} == pytest.approx(wanted)


def test_histograms(serve):
    served = serve()
    served.generate("a @pace=0.03", max_new_tokens=10)
    served.obey("steps 20")
    found = families(served)
    counts = {}
    for name, histogram in (
        ("time_to_first_token_seconds", RequestHistogram.TTFT), ("inter_token_latency_seconds", RequestHistogram.ITL),
        ("e2e_request_latency_seconds", RequestHistogram.E2E), ("request_queue_time_seconds", RequestHistogram.QUEUE),
    ):  # fmt: skip
        samples = found[f"ringserve_{name}"].samples
        buckets = [s for s in samples if s.name.endswith("_bucket")]
        assert [float(s.labels["le"]) for s in buckets] == [*edges(histogram), float("inf")]
        assert [s.value for s in buckets] == sorted(s.value for s in buckets)
        counts[name] = next(s.value for s in samples if s.name.endswith("_count"))
        assert buckets[-1].value == counts[name]
    assert list(counts.values()) == [1, 9, 1, 1]
    itl = next(s.value for s in found["ringserve_inter_token_latency_seconds"].samples if s.name.endswith("_sum"))
    assert itl > 9 * 0.025
    parts = {
        s.labels["part"]: s.value for s in found["ringserve_step_part_seconds"].samples if s.name.endswith("_count")
    }
    assert set(parts) == {part.replace("-", "_") for part in STEP_PARTS} | {"front"}
    assert (parts["device"], parts["feedback"], parts["front"]) == (20, 19, 1)
    idle = {s.labels["steps"]: s.value for s in found["ringserve_device_idle_share"].samples}
    assert idle == pytest.approx({"mean": 0.5, "p99": 0.5})
    assert served.metric("ringserve_uncompiled_steps_total") == 0


def test_timing_headers_on_request(serve):
    served = serve()
    url, body = "/models/llama2/generate", {"inputs": "a @pace=0.02", "parameters": {"max_new_tokens": 5}}
    plain = served.http.post(url, json=body)
    assert not [name for name in plain.headers if name.endswith("-ms")]
    served.obey("steps 0")
    with served.connect() as connection:
        connection.sendall(post(body, url, headers="X-RingServe-Timings: 1\r\n"))
        while served.peer.expect("submit")["prompt"] != body["inputs"]:
            pass
        served.peer.tell("steps 10")
        head = read_until(connection, b"\r\n\r\n").decode()
    values = {name: float(value) for name, value in re.findall(r"x-([a-z0-9-]+)-ms: ([0-9.]+)", head)}
    assert set(values) >= {"queue", "ttft", "itl", "e2e", *STEP_PARTS}
    assert values["queue"] == 2
    assert values["itl"] >= 15
    assert values["e2e"] >= values["ttft"]
    assert {part: values[part] for part in STEP_PARTS} == pytest.approx(
        {"schedule": 0.0006, "launch": 0.003, "device": 0.02, "publish": 0.003, "sample": 0.008,
         "wait-for-descriptor": 0.017, "feedback": 0.009}, abs=0.001,
    )  # fmt: skip


def test_timing_headers_of_a_stream(shared):
    answer = shared.http.post(
        "/v1/completions", json={"prompt": "a", "stream": True, "max_tokens": 2}, headers=HEADER
    )
    assert float(answer.headers["x-ttft-ms"]) > 0


def test_the_trace(serve):
    served = serve()
    with served.connect() as connection:
        connection.sendall(b"GET /debug/trace?seconds=1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        import time

        time.sleep(0.3)
        served.obey("steps 7")
        served.generate("a", max_new_tokens=3)
        answer = read_until(connection, b'"displayTimeUnit":"ms"}')
    events = json.loads(answer.partition(b"\r\n\r\n")[2])["traceEvents"]
    names = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert list(names.values()) == ["preprocess", "inference", "sampling", "front"]
    spans = [event for event in events if event["ph"] == "X"]
    seen: dict[str, list[str]] = {}
    for event in spans:
        seen.setdefault(names[event["tid"]], []).append(event["name"])
        assert event["dur"] >= 0
    assert {stage: len(spans) for stage, spans in seen.items()} == {
        "preprocess": 7, "inference": 14, "sampling": 21, "front": 2,
    }  # fmt: skip
    assert seen["front"] == ["read", "write"]
    device = [event for event in spans if event["name"] == "device"]
    assert [event["args"]["step"] for event in device] == list(range(1, 8))
    assert device[0]["dur"] == pytest.approx(20)


@pytest.mark.parametrize("seconds", ["0", "-1", "61", "x", "nan", "inf"])
def test_a_trace_of_a_wrong_length(shared, seconds):
    answer = shared.http.get(f"/debug/trace?seconds={seconds}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "seconds")


def test_a_line_per_request(serve):
    served = serve()
    served.generate("a b c", max_new_tokens=3)
    line = served.front.log("request")
    assert re.match(
        r"\S+ \S+ front +INFO +request [0-9a-f]{16} [0-9a-f]{32}: 5 prompt \+ 3 tokens, TTFT [\d.]+ ms, "
        r"ITL [\d.]+ ms, total [\d.]+ ms, length\n",
        line,
    )
    assert len(served.front.errors) == 1


def test_lines_as_json(serve):
    served = serve(log_format="json")
    served.generate("a b c", max_new_tokens=3)
    served.generate("a b c", temperature=-1)
    served.front.log("422")
    first, second = map(json.loads, served.front.errors)
    assert (first["stage"], first["level"], first["reason"], first["tokens"]) == ("front", "info", "length", 3)
    assert set(first) >= {"time", "message", "id", "prompt_tokens", "ttft_ms", "itl_ms", "e2e_ms"}
    assert second["reason"].startswith("422 temperature")
    assert second["ttft_ms"] is None


def test_no_line_per_request_at_warning(serve):
    served = serve(log_level="warning")
    served.generate("a b c", max_new_tokens=3)
    assert served.front.errors == []
