"""Labels of a server of several fronts, replicas and ranks."""

from __future__ import annotations

import json

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pipeline.front.metrics import StatsCollector
from pipeline.front.metrics.trace import trace
from pipeline.front.settings import FrontSettings
from pipeline.stats import Counters, PreprocessCounter, StatsPage, StatsReader, StepLog
from pipeline.wire.topology import ONE_OF_EACH, PREPROCESS, SAMPLING, Topology
from tests.pipeline.stats.test_writers import step

MANY = Topology(fronts=2, replicas=3, ranks=2)
SETTINGS = FrontSettings(model_name="tiny", vocab_size=1, max_length=1, max_prompt=1, max_rows=1, max_queue=1)


@pytest.fixture
def page():
    page = StatsPage.create(MANY)
    page.unlink()
    for stage in MANY.stages:
        Counters(page, stage.key).set_ready()
    yield page
    page.close()


def samples(page):
    text = b"".join(StatsCollector(StatsReader(page), SETTINGS).pieces()).decode()
    lines = [line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")]
    assert len(lines) == len(set(lines))
    return {
        (sample.name.removeprefix("ringserve_"), *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_every_stage_and_replica_has_samples_of_its_own(page):
    Counters(page, MANY.find(PREPROCESS, 2).key).set(PreprocessCounter.WAITING, 7)
    found = samples(page)
    assert found["num_requests_waiting", ("replica", "2")] == 7
    assert found["num_requests_waiting", ("replica", "1")] == 0
    for stage in MANY.stages:
        assert found["process_threads", *sorted(MANY.labels(stage).items())] >= 1
        assert found["restarts_total", *sorted(MANY.labels(stage).items())] == 0
    for ring in MANY.rings:
        assert ("ring_used", *sorted({**MANY.ring_labels(ring), "unit": ring.flow.unit}.items())) in found
        for side, stages in (("producer", [MANY.producer(ring)]), ("consumer", MANY.consumers(ring))):
            for stage in stages:
                labels = {**MANY.ring_labels(ring), "side": side, **MANY.labels(stage)}
                assert ("ring_waits_total", *sorted(labels.items())) in found


def test_labels_of_one_of_each_are_a_part_of_those_of_many(page):
    """So that what is asked of one server can be asked of the other."""
    alone = StatsPage.create(ONE_OF_EACH)
    alone.unlink()
    few, many = ({sample[0]: {label for label, _ in sample[1:]} for sample in samples(of)} for of in (alone, page))
    alone.close()
    assert set(few) <= set(many)
    assert all(labels <= many[name] for name, labels in few.items())


def test_a_trace_has_a_process_for_each_replica(page):
    for replica in (0, 2):
        StepLog(page, replica).record(*step(1, 0))
    events = json.loads(trace(StatsReader(page), 0, [(5, 9, "write")]))["traceEvents"]
    names = {event["pid"]: event["args"]["name"] for event in events if event["name"] == "process_name"}
    assert names == {1: "ringserve replica 0", 2: "ringserve replica 1", 3: "ringserve replica 2"}
    spans = [event for event in events if event["ph"] == "X"]
    assert {event["pid"] for event in spans if event["name"] == "sample"} == {1, 3}
    assert [event["pid"] for event in spans if event["name"] == "write"] == [1]
    threads = {(event["pid"], event["args"]["name"]) for event in events if event["name"] == "thread_name"}
    assert {pid for pid, name in threads if name == SAMPLING.name} == {1, 2, 3}
