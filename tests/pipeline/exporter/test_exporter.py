"""The exporter as a real process, and a collector that decodes what it sends."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time

import msgspec
import pytest

from pipeline.config import ConfigurationError, load_configuration
from pipeline.front.delivery.tracing import Tracing
from pipeline.host.facts import HostError
from pipeline.launcher.exporter import ExporterProcess
from pipeline.runtime.generations import handle_of
from pipeline.stats import Counters, FrontCounter, StatsPage, StatsReader
from pipeline.wire.span import RequestSpan
from tests.pipeline.doctor.helpers import EMULATED
from tests.pipeline.exporter.collector import WAIT_S, Collector, attributes_of


@pytest.fixture(scope="module")
def collector():
    with contextlib.closing(Collector()) as made:
        yield made


@pytest.fixture(scope="module")
def page():
    page = StatsPage.create()
    page.unlink()
    yield page
    page.close()


@pytest.fixture(scope="module")
def exporter(collector, page):
    config = load_configuration(EMULATED, ["serving_config.server_port=0", f"pipeline.otlp_endpoint={collector.url}"])
    with contextlib.closing(ExporterProcess(config, page)) as made:
        yield made


@pytest.fixture
def tracing(exporter, page):
    """A front of each test, one after the other."""
    with contextlib.closing(tracing_of(exporter, page)) as made:
        yield made


def tracing_of(exporter, page):
    (ring,) = exporter.rings.values()
    return Tracing(handle_of([*map(os.dup, ring.handle.fds)]), Counters(page, "front"))


_FRONT = """
import json, os, signal, sys
import msgspec
from pipeline.front.delivery.tracing import Tracing
from pipeline.runtime.generations import handle_of
from pipeline.stats import Counters, StatsHandle, StatsPage
from pipeline.wire.span import RequestSpan

page, *fds = map(int, sys.argv[2:])
tracing = Tracing(handle_of(fds), Counters(StatsPage.from_handle(StatsHandle(page)), "front"))
tracing.send(msgspec.convert(json.loads(sys.argv[1]), RequestSpan))
os.kill(os.getpid(), signal.SIGKILL)
"""


def span_of(number, **changes):
    now = time.monotonic_ns()
    values = {
        "trace_id": number.to_bytes(16), "span_id": id_of(number), "parent": b"", "operation": "chat",
        "model": "tiny", "response_id": f"{number:032x}", "client_id": "", "path": "/v1/chat/completions", "key": "",
        "stream": True, "texts": 1, "max_tokens": 16, "temperature": 0.5, "top_p": 1.0, "top_k": 0,
        "began_ns": now - 40_000_000, "row_ns": now - 30_000_000, "first_ns": now - 20_000_000,
        "last_ns": now - 10_000_000, "ended_ns": now, "input_tokens": 5, "cached_tokens": 2, "output_tokens": 3,
        "device_ns": 7_000_000, "outcomes": ["eos"], "message": "",
    }  # fmt: skip
    return RequestSpan(**{**values, **changes})


def id_of(number):
    return number.to_bytes(8)


def settled(look, wanted):
    end = time.monotonic() + WAIT_S
    while look() != wanted:
        assert time.monotonic() < end, look()
        time.sleep(0.02)


def test_a_request_with_its_parts(tracing, collector, page):
    before = StatsReader(page).exporter()
    tracing.send(span_of(7, parent=b"\x01" * 8, key="abc"))
    span, parts = collector.request(id_of(7))
    assert (span.name, span.trace_id, span.span_id) == ("chat tiny", (7).to_bytes(16), id_of(7))
    assert span.parent_span_id == b"\x01" * 8
    assert abs(span.end_time_unix_nano - time.time_ns()) < 60e9
    assert span.end_time_unix_nano - span.start_time_unix_nano == pytest.approx(40e6, abs=1)
    assert {name: part.end_time_unix_nano - part.start_time_unix_nano for name, part in parts.items()} == {
        "queue": 10_000_000, "prefill": 10_000_000, "decode": 10_000_000,
    }  # fmt: skip
    assert all(part.trace_id == span.trace_id for part in parts.values())
    found = attributes_of(span)
    assert {name: found[name] for name in found if name.startswith("gen_ai.usage")} == {
        "gen_ai.usage.input_tokens": 5, "gen_ai.usage.cache_read.input_tokens": 2, "gen_ai.usage.output_tokens": 3,
    }  # fmt: skip
    assert found["gen_ai.response.finish_reasons"] == ["stop"]
    assert (found["gen_ai.operation.name"], found["gen_ai.request.model"]) == ("chat", "tiny")
    assert (found["ringserve.device_seconds"], found["ringserve.key"]) == (0.007, "abc")
    assert found["gen_ai.response.time_to_first_chunk"] == 0.02
    assert span.status.code == span.status.STATUS_CODE_UNSET
    assert collector.resources[0]["service.name"] == "ringserve"
    settled(lambda: StatsReader(page).exporter(), {**before, "exported": before["exported"] + 1})


def test_one_that_was_broken_off_in_its_prompt(tracing, collector):
    tracing.send(
        span_of(8, first_ns=0, last_ns=0, outcomes=["cancelled"], message="cancelled: gone", output_tokens=0)
    )
    span, parts = collector.request(id_of(8))
    assert set(parts) == {"queue", "prefill"}
    assert parts["prefill"].end_time_unix_nano == span.end_time_unix_nano
    assert (span.status.code, span.status.message) == (span.status.STATUS_CODE_ERROR, "cancelled: gone")
    found = attributes_of(span)
    assert (found["error.type"], found["gen_ai.response.finish_reasons"]) == ("cancelled", ["error"])
    assert "gen_ai.response.time_to_first_chunk" not in found


def test_a_collector_that_refuses(tracing, collector, page):
    before = StatsReader(page).exporter()
    collector.status = 400
    tracing.send(span_of(20))
    settled(lambda: StatsReader(page).exporter(), {**before, "failed": before["failed"] + 1})
    collector.status = 200
    tracing.send(span_of(21))
    collector.request(id_of(21))


def test_what_there_is_no_room_for_is_dropped_and_counted(exporter, tracing, page, collector):
    os.kill(exporter.pid, signal.SIGSTOP)
    counters = Counters(page, "front")
    before, sent = counters.get(FrontCounter.SPANS), 0
    while not counters.get(FrontCounter.SPANS_DROPPED):
        sent += 1
        tracing.send(span_of(1000 + sent))
        assert sent < 100_000, "it is not bounded"
    assert counters.get(FrontCounter.SPANS) - before == sent - 1
    os.kill(exporter.pid, signal.SIGCONT)
    collector.request(id_of(1000 + sent - 1))
    assert {id_of(1000 + number) for number in range(1, sent)} <= collector.requests().keys()
    assert id_of(1000 + sent) not in collector.requests()


def test_it_dies_and_comes_back_and_what_waited_is_sent(exporter, tracing, collector):
    tracing.send(span_of(30))
    collector.request(id_of(30))
    killed = exporter.pid
    os.kill(killed, signal.SIGKILL)
    for number in (31, 32):
        tracing.send(span_of(number))
    end = time.monotonic() + WAIT_S
    while exporter.pid in (killed, None):
        assert time.monotonic() < end
        exporter.due = 0.0  # as if the time had passed
        exporter.look()
    for number in (31, 32):
        collector.request(id_of(number))


def test_the_next_front_goes_on_when_one_was_killed(exporter, collector, page):
    (ring,) = exporter.rings.values()
    fds = [page.handle.fd, *ring.handle.fds]
    command = [sys.executable, "-c", _FRONT, json.dumps(msgspec.to_builtins(span_of(35))), *map(str, fds)]
    done = subprocess.run(command, pass_fds=fds, timeout=WAIT_S, check=False)
    assert done.returncode == -signal.SIGKILL
    collector.request(id_of(35))
    with contextlib.closing(tracing_of(exporter, page)) as tracing:
        tracing.send(span_of(36))
        collector.request(id_of(36))


def test_at_the_end_it_sends_what_is_left(exporter, tracing, collector):
    """The last one here: the exporter is gone then."""
    tracing.send(span_of(40))
    collector.request(id_of(40))  # it is up
    tracing.send(span_of(41))
    exporter.close()
    assert id_of(41) in collector.requests()


def test_without_the_packages_it_is_said_what_to_install(page, monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk", None)
    config = load_configuration(EMULATED, ["serving_config.server_port=0", "pipeline.otlp_endpoint=http://otel"])
    with pytest.raises(HostError, match=re.escape("pip install 'ringserve[otel]'")):
        ExporterProcess(config, page)


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
        ("https://otel.example.org/", "https://otel.example.org/v1/traces"),
        ("http://otel:4318/custom", "http://otel:4318/custom"),
        ("otel:4318", None),
        ("ftp://otel", None),
        ("http://user:secret@otel", None),
        ("http://otel/?a=b", None),
    ],
)
def test_addresses(given, url):
    overrides = ["serving_config.server_port=0", f"pipeline.otlp_endpoint={given}"]
    if url is None:
        with pytest.raises(ConfigurationError, match="expected a URL such as"):
            load_configuration(EMULATED, overrides)
    else:
        assert load_configuration(EMULATED, overrides).pipeline.otlp_endpoint == url
