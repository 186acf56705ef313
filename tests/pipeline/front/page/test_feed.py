"""The live page's stream: figures, watchers, and what it costs nobody. Its look is tested in a browser."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import time

import httpx
import pytest

from pipeline.front.http.errors import ApiError
from pipeline.front.page import LiveFeed, Sample, figures
from pipeline.front.page.feed import MAX_WATCHERS
from pipeline.stats import (
    Counters,
    FrontCounter,
    Histograms,
    PreprocessCounter,
    RequestHistogram,
    SamplingCounter,
    StageState,
    StatsPage,
    StatsReader,
    StepColumn,
    StepHistogram,
    Supervision,
)
from pipeline.wire.step import Stamp
from pipeline.wire.topology import Topology
from tests.pipeline.front.conftest import read_until

# ---- figures -----------------------------------------------------------------------------------------------------


class Page:
    """A page of statistics, and samples of it at times that are chosen."""

    def __init__(self) -> None:
        self.page = StatsPage.create()
        self.page.unlink()
        self.samples: list[Sample] = []
        self.requests, self.steps = Histograms(self.page, RequestHistogram), Histograms(self.page, StepHistogram)

    def counters(self, stage: str) -> Counters:
        return Counters(self.page, stage)

    def record(self, number: int, sent_ns: int, *, tokens: int, rows: int, decode_rows: int) -> None:
        """Of a step."""
        record = self.page.views.steps[0, number]
        record[StepColumn.STEP], record[StepColumn.STAMPS + Stamp.SENT] = number, sent_ns
        record[StepColumn.TOKENS], record[StepColumn.ROWS] = tokens, rows
        record[StepColumn.DECODE_ROWS] = decode_rows

    def look(self, at_s: float) -> None:
        self.samples.append(dataclasses.replace(Sample.take(StatsReader(self.page)), at_s=at_s))

    def figures(self):
        return figures(self.samples)


@pytest.fixture
def page():
    page = Page()
    yield page
    page.page.close()


def test_rates_are_of_the_last_two_seconds(page):
    front = page.counters("front")
    for quarter in range(20):
        page.look(quarter / 4)
        front.add(FrontCounter.GENERATED_TOKENS, 100 if quarter < 8 else 25)
    page.look(5.0)
    assert page.figures()["tokens_per_s"] == pytest.approx(100)
    assert page.figures()["requests_per_s"] == 0


def test_latencies_are_of_the_last_ten_seconds(page):
    page.requests.observe(RequestHistogram.TTFT, 9_000_000_000)  # long ago
    page.look(0)
    page.look(4)
    page.requests.observe(RequestHistogram.TTFT, 30_000_000)
    page.requests.observe(RequestHistogram.TTFT, 70_000_000)
    page.requests.observe(RequestHistogram.ITL, 24_000_000, 98)
    page.requests.observe(RequestHistogram.ITL, 120_000_000, 2)
    page.look(12)
    seen = page.figures()
    assert seen["ttft_s"] == pytest.approx(0.05)
    assert seen["ttft_p99_below_s"] == 0.08
    assert seen["itl_s"] == pytest.approx((98 * 0.024 + 2 * 0.12) / 100)
    assert seen["itl_p99_below_s"] == 0.15
    page.look(24)
    seen = page.figures()
    assert (seen["ttft_s"], seen["ttft_p99_below_s"], seen["itl_s"]) == (None, None, None)


def test_what_lies_above_all_buckets_has_no_bound(page):
    page.look(0)
    page.requests.observe(RequestHistogram.ITL, 100_000_000_000)
    page.look(1)
    assert page.figures()["itl_p99_below_s"] is None
    assert page.figures()["itl_s"] == pytest.approx(100)


def test_the_split_of_a_step(page):
    page.look(0)
    assert page.figures()["step"] == {
        "device_s": None, "overhead_s": None, "overhead_p99_below_s": None, "split_s": None,
    }  # fmt: skip
    sampling = page.counters("sampling")
    page.steps.observe(StepHistogram.DEVICE, 22_500_000, 10)
    page.steps.observe(StepHistogram.OVERHEAD, 180_000, 10)
    for counter, ns in (
        (SamplingCounter.OVERHEAD_PREPROCESS_NS, 0), (SamplingCounter.OVERHEAD_INFERENCE_NS, 1_200_000),
        (SamplingCounter.OVERHEAD_SAMPLING_NS, 600_000),
    ):  # fmt: skip
        sampling.add(counter, ns)
    page.look(1)
    step = page.figures()["step"]
    assert (step["device_s"], step["overhead_s"]) == (pytest.approx(0.0225), pytest.approx(0.00018))
    assert step["overhead_p99_below_s"] == 0.0002
    assert step["split_s"] == pytest.approx({"preprocess": 0, "inference": 0.00012, "sampling": 0.00006})


def test_a_stage_that_began_anew_counts_from_zero(page):
    sampling = page.counters("sampling")
    sampling.add(SamplingCounter.STEPS, 1000)
    page.steps.observe(StepHistogram.DEVICE, 50_000_000, 1000)
    page.look(0)
    page.page.reset("sampling")
    page.page.views.step[:] = 0
    sampling.add(SamplingCounter.STEPS, 30)
    page.steps.observe(StepHistogram.DEVICE, 20_000_000, 30)
    page.look(1)
    assert page.figures()["steps_per_s"] == pytest.approx(30)
    assert page.figures()["step"]["device_s"] == pytest.approx(0.02)


def test_rows_of_a_batch_that_stands_still_are_not_shown(page):
    page.record(9, 1_000, tokens=50, rows=7, decode_rows=7)  # of an earlier generation of rings
    page.record(5, 2_000, tokens=70, rows=9, decode_rows=6)
    page.counters("sampling").set(SamplingCounter.STEPS, 5)
    page.look(0)
    assert page.figures()["batch"] == {"running": 0, "decode_rows": 0, "prefill_rows": 0, "tokens": 0}
    page.record(6, 3_000, tokens=72, rows=8, decode_rows=6)
    page.counters("sampling").set(SamplingCounter.STEPS, 6)
    page.counters("preprocess").set(PreprocessCounter.RUNNING, 8)
    page.look(1)
    assert page.figures()["batch"] == {"running": 8, "decode_rows": 6, "prefill_rows": 2, "tokens": 72}
    assert page.figures()["tokens_per_row"] is None


# ---- the stream --------------------------------------------------------------------------------------------------


class Watcher:
    """Reads events of /live."""

    def __init__(self, served):
        self.connection = served.connect()
        self.connection.sendall(b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n")
        self.head, _, self._rest = read_until(self.connection, b"\r\n\r\n").partition(b"\r\n\r\n")

    def event(self):
        while (found := self._rest.find(b"\n\n")) < 0:
            self._rest += self.connection.recv(65536)
        block, self._rest = self._rest[:found], self._rest[found + 2 :]
        name, data = block[block.index(b"event: ") :].split(b"\n")[:2]
        return name.removeprefix(b"event: ").decode(), json.loads(data.removeprefix(b"data: "))

    def figures(self, wanted=lambda figures: True):
        """The next ones that are as wanted."""
        for _ in range(60):
            name, data = self.event()
            if name == "figures" and wanted(data):
                return data
        raise AssertionError(f"never as wanted: {data}")

    def close(self):
        self.connection.close()


@pytest.fixture
def watch():
    watchers = []

    def start(served):
        watchers.append(Watcher(served))
        return watchers[-1]

    yield start
    for watcher in watchers:
        watcher.close()


def test_the_figures_are_those_of_the_metrics(serve, watch):
    served = serve(runner="a device, emulated")
    watcher = watch(served)
    assert b"content-type: text/event-stream" in watcher.head
    assert b"cache-control: no-store" in watcher.head
    name, about = watcher.event()
    assert (name, about["model"], about["runner"], about["max_rows"]) == ("about", "tiny", "a device, emulated", 8)
    assert about["serves"] is True
    served.obey("numbers")
    seen = watcher.figures(lambda figures: figures["requests"]["waiting"] == 12)
    for figure, metric in (
        (seen["requests"]["waiting"], "num_requests_waiting"), (seen["batch"]["running"], "num_requests_running"),
        (seen["kv"]["used"], "kv_blocks_used"), (seen["kv"]["total"], "kv_blocks"),
        (seen["kv"]["cached"], "kv_blocks_cached"), (seen["requests"]["preemptions"], "num_preemptions_total"),
    ):  # fmt: skip
        assert figure == served.metric(f"ringserve_{metric}") > 0
    served.generate("a b c @pace=0.01", max_new_tokens=20)
    ttft, itl = mean(served, "time_to_first_token"), mean(served, "inter_token_latency")
    seen = watcher.figures(lambda figures: figures["itl_s"] == pytest.approx(itl))
    assert seen["ttft_s"] == pytest.approx(ttft)
    served.obey("steps 30")
    overhead = mean(served, "host_overhead")
    seen = watcher.figures(lambda figures: figures["step"]["overhead_s"] == pytest.approx(overhead))
    assert seen["step"]["device_s"] == pytest.approx(20e-6)
    assert seen["rings"]["requests"]["capacity"] == served.metric(
        "ringserve_ring_capacity", ring="requests", unit="bytes"
    )
    assert watcher.figures(lambda figures: figures["ready"])
    served.obey("unready")
    assert watcher.figures(lambda figures: not figures["ready"])


def mean(served, name):
    return served.metric(f"ringserve_{name}_seconds_sum") / served.metric(f"ringserve_{name}_seconds_count")


def test_all_watchers_are_told_the_same(serve, watch):
    served = serve()
    served.obey("numbers")
    first, second = watch(served), watch(served)
    for watcher in (first, second):
        watcher.event()
    told = [[watcher.figures()["cpu"] for _ in range(6)] for watcher in (first, second)]
    assert any(figures in told[1] for figures in told[0])


def test_there_are_so_many_watchers_at_most(serve, watch):
    served = serve()
    watchers = [watch(served) for _ in range(MAX_WATCHERS)]
    assert all(watcher.event()[0] == "about" for watcher in watchers)
    refused = served.http.get("/live")
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert "watching" in refused.json()["error"]["message"]
    watchers[0].close()
    deadline = time.monotonic() + 10
    while b" 200 " not in watch(served).head:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_head_request_does_not_watch(shared):
    answer = shared.http.head("/live")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream")


def test_watchers_do_not_hold_up_the_end(serve, watch):
    served = serve(drain_timeout_s=60.0)
    watcher = watch(served)
    watcher.figures()
    served.drain()
    rest = b"".join(iter(lambda: watcher.connection.recv(65536), b""))
    assert (watcher._rest + rest).endswith(b"0\r\n\r\n")  # the answer is complete
    watcher.close()
    assert served.front.wait(30) == 0  # not after a minute


class CountingEnds:
    """Counts how often figures are computed."""

    def __init__(self):
        self.copies = 0

    def copy(self):
        self.copies += 1


class Client:
    """As much of an exchange as a feed touches. `slow`: takes what it is given only when it is let."""

    method = "GET"

    def __init__(self):
        self.connection, self.on_lost = self, set()
        self.said = []
        self.reads = asyncio.Event()
        self.reads.set()

    async def start(self, *_):
        pass

    async def write(self, event):
        await self.reads.wait()
        self.said.append(event)

    async def end(self):
        self.said.append(b"")


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


def test_nothing_is_computed_while_nobody_watches():
    async def scenario():
        page, ends = StatsPage.create(), CountingEnds()
        page.unlink()
        feed = LiveFeed(StatsReader(page), ends, {})
        clients = [Client() for _ in range(3)]
        tasks = [asyncio.create_task(feed.watch(client)) for client in clients]
        await until(lambda: all(len(client.said) > 3 for client in clients))
        assert ends.copies <= 2 + max(len(client.said) for client in clients)  # not three times as often
        for client in clients:
            for lost in client.on_lost:
                lost("the client is gone")
        await asyncio.gather(*tasks)
        copies = ends.copies
        await asyncio.sleep(1)
        assert ends.copies == copies
        again = Client()
        task = asyncio.create_task(feed.watch(again))
        await until(lambda: len(again.said) > 1)
        feed.close()
        await task
        assert again.said[-1] == b""
        page.close()

    asyncio.run(scenario())


def test_a_slow_watcher_misses_events_and_holds_up_nobody():
    async def scenario():
        page = StatsPage.create()
        page.unlink()
        feed = LiveFeed(StatsReader(page), CountingEnds(), {})
        slow, quick = Client(), Client()
        tasks = [asyncio.create_task(feed.watch(client)) for client in (slow, quick)]
        await until(lambda: slow.said)
        slow.reads.clear()
        await until(lambda: len(quick.said) > 8)
        slow.reads.set()
        await until(lambda: len(slow.said) > 3)
        assert len(slow.said) <= len(quick.said) - 4
        feed.close()
        await asyncio.gather(*tasks)
        page.close()

    asyncio.run(scenario())


def test_a_failure_ends_the_streams():
    """Rather than leave them waiting for ever."""

    class BrokenEnds:
        def copy(self):
            raise ArithmeticError("no figures")

    async def scenario():
        page = StatsPage.create()
        page.unlink()
        feed = LiveFeed(StatsReader(page), BrokenEnds(), {})
        with pytest.raises(ArithmeticError):
            await asyncio.wait_for(feed.watch(Client()), 10)
        with contextlib.suppress(ArithmeticError, ApiError):
            await asyncio.wait_for(feed.watch(Client()), 10)
        page.close()

    asyncio.run(scenario())


# ---- who may see it ----------------------------------------------------------------------------------------------


def test_the_page_needs_no_key_and_stays_with_the_metrics(serve):
    served = serve(api_keys=["0123456789abcdef"], metrics_port=0)
    with httpx.Client(base_url=f"http://127.0.0.1:{served.metrics_port}") as operators:
        for path in ("/", "/page/main.js", "/metrics"):
            assert operators.get(path).status_code == 200
            assert served.http.get(path).status_code == 404
        with operators.stream("GET", "/live") as stream:
            about = next(line for line in stream.iter_lines() if line.startswith("data: "))
            assert json.loads(about.removeprefix("data: "))["serves"] is False


def test_each_of_several_replicas_has_figures_of_its_own():
    page = StatsPage.create(Topology(replicas=2))
    page.unlink()
    try:
        reader, samples = StatsReader(page), []
        for tokens in (0, 30):
            Counters(page, "sampling 1").set(SamplingCounter.TOKENS, tokens)
            Counters(page, "preprocess 1").set(PreprocessCounter.RUNNING, 3)
            Supervision(page).set_state("inference 0", StageState.RESTARTING)
            samples.append(dataclasses.replace(Sample.take(reader), at_s=1.5 * len(samples)))
        first, second = figures(samples)["replicas"]
        assert (first["state"], first["tokens_per_s"], first["running"]) == ("restarting", 0, 0)
        assert (second["state"], second["tokens_per_s"], second["running"]) == ("starting", 20, 3)
    finally:
        page.close()
