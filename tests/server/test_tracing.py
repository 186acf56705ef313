"""Traces of a whole server's requests, at a collector that decodes them."""

from __future__ import annotations

import contextlib
import os
import signal

import pytest

from tests.pipeline.exporter.collector import Collector, attributes_of
from tests.server.launched import Launched

pytestmark = pytest.mark.server

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
KNOWN = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
BODY = {"prompt": "Who are you?", "max_tokens": 5}


@pytest.fixture(scope="module")
def collector():
    with contextlib.closing(Collector()) as made:
        yield made


@pytest.fixture(scope="module")
def server(tmp_path_factory, collector):
    with Launched(tmp_path_factory.mktemp("traced"), [f"pipeline.otlp_endpoint={collector.url}"]) as made:
        yield made


def span_for(collector, answer):
    """The span that the answer's header names, and its parts."""
    _, trace, span, flags = answer.headers["traceparent"].split("-")
    assert flags == "01"
    found = collector.request(bytes.fromhex(span))
    assert found[0].trace_id.hex() == trace
    return found


def test_what_a_client_began_goes_on_here(server, collector):
    answer = server.client.post("/v1/completions", json=BODY, headers=KNOWN)
    span, parts = span_for(collector, answer)
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert list(parts) == ["queue", "prefill", "decode"]
    found = attributes_of(span)
    assert span.name == "text_completion emulated"
    assert found["gen_ai.usage.input_tokens"] == answer.json()["usage"]["prompt_tokens"]
    assert (found["gen_ai.usage.output_tokens"], found["gen_ai.request.max_tokens"]) == (5, 5)
    assert answer.json()["id"] == f"cmpl-{found['gen_ai.response.id']}"
    assert found["ringserve.device_seconds"] > 0


def test_one_of_its_own_with_several_texts(server, collector):
    chat = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 3, "n": 2}
    span, _ = span_for(collector, server.client.post("/v1/chat/completions", json=chat))
    found = attributes_of(span)
    assert (span.name, span.parent_span_id, found["gen_ai.request.choice.count"]) == ("chat emulated", b"", 2)
    assert found["gen_ai.response.finish_reasons"] == ["length", "length"]
    assert found["gen_ai.usage.output_tokens"] == 6


def test_what_the_client_does_not_want_recorded_is_not(server):
    before = server.metric("ringserve_spans_total", result="sent")
    answer = server.client.post("/v1/completions", json=BODY, headers={"traceparent": f"00-{TRACE}-{PARENT}-00"})
    assert answer.status_code == 200
    assert "traceparent" not in answer.headers
    assert server.metric("ringserve_spans_total", result="sent") == before


@pytest.mark.parametrize(
    "header", [f"00-{'0' * 32}-{PARENT}-01", f"ff-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-01-more", "nonsense"]
)
def test_a_header_that_is_wrong_begins_a_trace_of_its_own(server, header):
    answer = server.client.post("/v1/completions", json=BODY, headers={"traceparent": header})
    assert TRACE not in answer.headers["traceparent"]
    assert answer.headers["traceparent"].startswith("00-")


def test_refused_and_aborted_requests_are_traced(server, collector):
    refused = server.client.post("/v1/completions", json={**BODY, "temperature": -1})
    span, parts = span_for(collector, refused)
    assert (attributes_of(span)["error.type"], span.status.code) == ("refused", span.status.STATUS_CODE_ERROR)
    assert list(parts) == ["queue"]
    body = {"prompt": "a", "max_tokens": 400, "ignore_eos": True, "stream": True}
    with server.client.stream("POST", "/v1/completions", json=body) as answer:
        next(answer.iter_lines())
    span, parts = span_for(collector, answer)
    found = attributes_of(span)
    assert (found["error.type"], found["gen_ai.response.finish_reasons"]) == ("cancelled", ["error"])
    assert 0 < found["gen_ai.usage.output_tokens"] < 400
    assert "decode" in parts


def test_the_exporter_dies_and_nothing_else_notices(server, collector):
    stages, generation = server.stages(), server.metric("ringserve_generation")
    os.kill(stages.pop("exporter"), signal.SIGKILL)
    answers = [server.client.post("/v1/completions", json=BODY) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    for answer in answers:
        span_for(collector, answer)  # from the next exporter
    after = server.stages()
    assert after.pop("exporter")
    assert (after, server.metric("ringserve_generation")) == (stages, generation)
    assert server.metric("ringserve_restarts_total") == 0
    assert server.client.get("/health").status_code == 200
    assert "the exporter of spans ended (-9); starting it again" in server.text_said
