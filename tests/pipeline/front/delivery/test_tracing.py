"""Trace contexts of clients, and spans for which there is room or none."""

from __future__ import annotations

import contextlib
import os
from types import SimpleNamespace

import pytest

import ipc
from pipeline.front.delivery.tracing import TraceContext, Tracing, operation_of
from pipeline.runtime.generations import handle_of
from pipeline.stats import Counters, FrontCounter, StatsPage
from pipeline.wire.span import unpack_span
from tests.pipeline.exporter.test_exporter import span_of

SEED, TRACE, PARENT = "0123456789abcdef" * 2, "4b" * 16, "00f067aa0ba902b7"


def context(header=None):
    headers = {} if header is None else {b"traceparent": header.encode()}
    return TraceContext.of(SimpleNamespace(seed=SEED, headers=headers))


@pytest.mark.parametrize(
    "header", [f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-ff", f"7a-{TRACE}-{PARENT}-01-x"]
)
def test_a_client_s_trace_goes_on(header):
    found = context(header)
    assert (found.trace_id.hex(), found.parent.hex(), found.span_id.hex()) == (TRACE, PARENT, SEED[16:])
    assert found.header() == (b"traceparent", f"00-{TRACE}-{SEED[16:]}-01".encode())


@pytest.mark.parametrize(
    "header",
    [None, "", "x", f"ff-{TRACE}-{PARENT}-01", f"00-{'0' * 32}-{PARENT}-01", f"00-{TRACE}-{'0' * 16}-01",
     f"00-{TRACE}-{PARENT}-01-x", f"00-{TRACE.upper()}-{PARENT}-01", f"00-{TRACE}-{PARENT}-1",
     f"00-{TRACE}-{PARENT}"],
)  # fmt: skip
def test_without_one_that_is_right_it_has_its_own(header):
    assert context(header) == TraceContext(bytes.fromhex(SEED), bytes.fromhex(SEED[16:]))


def test_one_that_is_not_to_be_recorded():
    assert context(f"00-{TRACE}-{PARENT}-00") is None
    assert context(f"00-{TRACE}-{PARENT}-02") is None


def test_operations():
    assert {operation_of(path) for path in ("/v1/chat/completions", "/api/chat", "/v1/messages")} == {"chat"}
    assert {operation_of(path) for path in ("/v1/completions", "/api/generate", "/models/m")} == {"text_completion"}


def test_spans_are_handed_over_or_dropped_and_counted():
    page = StatsPage.create()
    page.unlink()
    counters = Counters(page, "front")
    ring = ipc.ByteRing.create("spans", capacity=1 << 16, backing=ipc.Backing.MEMFD)
    tracing = Tracing(handle_of([*map(os.dup, ring.handle.fds)]), counters)
    span = span_of(1, message="x" * 1000)
    with ring, contextlib.closing(tracing), ring.consumer() as consumer:
        while not counters.get(FrontCounter.SPANS_DROPPED):
            tracing.send(span)
        sent = counters.get(FrontCounter.SPANS)
        assert sent > 50
        received = [unpack_span(record) for record in consumer.read_many(2 * sent)]
        assert len(received) == sent
        assert received[0] == received[-1] == span
        assert span.message == "x" * 500
        tracing.send(span_of(1, path="x" * (1 << 15)))  # larger than any may be
        consumer.close()
        tracing.send(span)
        assert counters.get(FrontCounter.SPANS_DROPPED) == 3
