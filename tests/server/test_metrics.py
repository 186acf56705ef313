"""What a real server's /metrics says, compared with what is known from elsewhere."""

from __future__ import annotations

import concurrent.futures
import json
import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ipc.inspect import find_segments
from pipeline.wire.topology import BEHIND_FRONT, FLOWS
from tests.server.launched import Launched, wait_until

ROOT = Path(__file__).parents[2]
REQUESTS, TOKENS = 12, 25


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """One that has answered a few requests, and has nothing to do any more."""
    server = Launched(tmp_path_factory.mktemp("server"), ())
    try:
        with concurrent.futures.ThreadPoolExecutor(REQUESTS) as pool:
            answers = [
                pool.submit(
                    server.generate,
                    f"client {i}",
                    TOKENS,
                    ignore_eos=True,
                    do_sample=i % 2 == 0,
                    repetition_penalty=1.1,
                )
                for i in range(REQUESTS)
            ]
        assert {answer.result().status_code for answer in answers} == {200}
        wait_until(lambda: server.metric("ringserve_num_requests_running") == 0, "rows are not given back")
        yield server
    finally:
        server.stop()


class Scrape:
    """Samples by name and labels."""

    def __init__(self, server):
        self.text = server.client.get("/metrics").text
        self.families = list(text_string_to_metric_families(self.text))
        self._samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families
            for sample in family.samples
        }

    def __call__(self, name, **labels):
        """With these labels, and of the only replica, if it is of one."""
        every = [frozenset(labels.items()), frozenset({**labels, "replica": "0"}.items())]
        (value,) = [self._samples[key] for which in every if (key := (f"ringserve_{name}", which)) in self._samples]
        return value


@pytest.fixture(scope="module")
def scrape(server):
    return Scrape(server)


def test_the_text_is_what_prometheus_expects(scrape):
    """What promtool's linter asks for, beside what the parser has checked."""
    names = [family.name for family in scrape.families]
    assert len(names) == len(set(names))
    samples = [line.rpartition(" ")[0] for line in scrape.text.splitlines() if not line.startswith("#")]
    assert len(samples) == len(set(samples))
    for family in scrape.families:
        assert re.fullmatch(r"ringserve_[a-z0-9_]+", family.name)
        assert family.documentation
        assert not re.search(r"_(ms|us|ns|milliseconds|kb|mb|percent)\b", family.name), "base units"
        totals = {sample.name.endswith("_total") for sample in family.samples}
        assert totals == {family.type == "counter"}
        assert family.type in ("counter", "gauge", "histogram")


def test_the_page_of_metrics_has_every_metric(scrape):
    page = (ROOT / "docs" / "metrics.md").read_text()
    for family in scrape.families:
        assert f"| `{family.name}{'_total' * (family.type == 'counter')}` |" in page


def test_the_dashboard_asks_for_what_there_is(scrape):
    labels = {}
    for family in scrape.families:
        for sample in family.samples:
            labels.setdefault(sample.name, {"instance"}).update(sample.labels)
    panels = json.loads((ROOT / "configs" / "grafana.json").read_text())["panels"]
    targets = [target for panel in panels for target in panel.get("targets", ())]
    assert len(targets) > 50
    for target in targets:
        expression, grouped = target["expr"], set()
        selected = re.findall(r"(?:by \(([^)]*)\) )?\((?:rate\()?(ringserve_\w+){([^}]*)}", expression)
        assert len(selected) == expression.count("ringserve_")
        for by, name, matchers in selected:
            groups = set(by.split(", ")) - {""}
            wanted = dict(re.findall(r'(\w+)=~?"([^"]*)"', matchers))
            assert wanted.pop("replica") == "$replica|"  # and what has none, whichever is chosen
            assert name in labels
            assert groups | set(wanted) <= labels[name], expression
            grouped |= groups
        assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= grouped


def test_what_belongs_to_a_replica_says_which(scrape):
    """Requests are the front's, and may have been in several."""
    samples = [sample for family in scrape.families for sample in family.samples]
    of_replicas = {sample.name for sample in samples if "replica" in sample.labels}
    for stage in {sample.labels["stage"] for sample in samples if "stage" in sample.labels}:
        where = {sample.labels.get("replica") for sample in samples if sample.labels.get("stage") == stage}
        lanes = {"0"} if stage != "front" else {None, "0"}  # the rings at whose end it is
        assert where == lanes, stage
    for name in ("num_requests_running", "kv_blocks", "host_overhead_seconds_count", "ring_used", "generation"):
        assert f"ringserve_{name}" in of_replicas
    for name in ("requests_total", "time_to_first_token_seconds_count", "ready", "max_rows"):
        assert f"ringserve_{name}" not in of_replicas


def test_sizes_of_requests(server, scrape):
    prompts = [len(server.tokenizer.encode(f"client {i}")) for i in range(REQUESTS)]
    for name, total in (
        ("request_prompt_tokens", sum(prompts)),
        ("request_generation_tokens", REQUESTS * TOKENS),
        ("request_params_max_tokens", REQUESTS * TOKENS),
    ):
        assert (scrape(f"{name}_count"), scrape(f"{name}_sum")) == (REQUESTS, total)
    assert scrape("request_generation_tokens_bucket", le="20.0") == 0
    assert scrape("request_generation_tokens_bucket", le="50.0") == REQUESTS
    assert scrape("prompt_tokens_total") == sum(prompts)
    assert scrape("generation_tokens_total") == REQUESTS * TOKENS


def test_phases_of_requests_add_up(scrape):
    queue, prefill, decode, inference, e2e, ttft, itl, tpot = (
        scrape(f"{name}_seconds_sum")
        for name in (
            "request_queue_time", "request_prefill_time", "request_decode_time", "request_inference_time",
            "e2e_request_latency", "time_to_first_token", "inter_token_latency", "request_time_per_output_token",
        )
    )  # fmt: skip
    assert min(queue, prefill, decode) > 0
    assert prefill + decode == pytest.approx(inference, abs=1e-6)
    assert queue + prefill == pytest.approx(ttft, abs=1e-6)
    assert itl == pytest.approx(decode, rel=1e-3)
    assert tpot * (TOKENS - 1) == pytest.approx(decode, rel=1e-3)
    assert ttft + decode <= e2e
    assert scrape("inter_token_latency_seconds_count") == REQUESTS * (TOKENS - 1)


def test_host_overhead_and_its_split(scrape):
    steps = scrape("steps_total", stage="sampling")
    assert scrape("iteration_tokens_count") == steps
    rows = scrape("prompt_tokens_total") + REQUESTS * (TOKENS - 1)
    assert rows <= scrape("iteration_tokens_sum") <= rows + REQUESTS  # with overlap, one row each may be for nothing
    count, overhead = scrape("host_overhead_seconds_count"), scrape("host_overhead_seconds_sum")
    assert 0 < count < steps
    behind = [role.name for role in BEHIND_FRONT]
    split = [scrape("host_overhead_stage_seconds_total", stage=stage) for stage in behind]
    assert sum(split) == pytest.approx(overhead, abs=1e-6)
    assert scrape("step_part_seconds_count", part="wait_for_descriptor") == count
    gaps = [scrape("step_part_seconds_sum", part=part) for part in ("wait_for_descriptor", "launch")]
    assert overhead <= sum(gaps) + 1e-6


def test_rings(server, scrape):
    rings = [segment.ring for segment in find_segments() if segment.ring]
    found = {ring.name: ring for ring in rings if ring.creator_pid == server.process.pid}
    producers = {flow.name: flow.producer for flow in FLOWS}
    assert set(found) == set(producers)
    for name, ring in found.items():
        unit = ring.kind
        assert scrape("ring_used", ring=name, unit=unit) == ring.occupancy(0) <= 1  # tokens that nobody needed
        assert scrape("ring_capacity", ring=name, unit=unit) == ring.capacity
        assert scrape("ring_passed_total", ring=name, unit=unit) == ring.consumers[0].index > 0
        for side in (ring.producer, ring.consumers[0]):
            assert (side.role == "producer") == (producers[name] == side.label)
            labels = {"ring": name, "side": side.role, "stage": side.label}
            assert scrape("ring_wakes_total", **labels) == side.counters["wakes"]
            assert scrape("ring_lost_wakes_total", **labels) == 0
            for counter, scale in (
                ("waits", 1),
                ("parks", 1),
                ("spin_ns", 1e9),
            ):  # a side that waits goes on counting
                shown = scrape(f"ring_{counter.replace('ns', 'seconds')}_total", **labels)
                assert 0 <= shown <= side.counters[counter] / scale
    assert scrape("ring_passed_total", ring="steps", unit="slots") == scrape("steps_total", stage="inference")
    assert scrape("ring_waits_total", ring="steps", side="consumer", stage="inference") > 0


def test_processes(server, scrape):
    for stage, pid in server.stages().items():
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        assert scrape("process_resident_memory_bytes", stage=stage) == pytest.approx(pages * 4096, rel=0.3)
        assert 0 < scrape("process_cpu_seconds_total", stage=stage) < 100
        assert scrape("process_threads", stage=stage) == len(list(Path(f"/proc/{pid}/task").iterdir()))
        created = Path(f"/proc/{pid}").stat().st_ctime
        assert scrape("process_start_time_seconds", stage=stage) == pytest.approx(created, abs=5)
    facts = server.runner.facts
    assert "emulated" in facts.name
    assert scrape("info", version="0.1.0", model=server.config.pipeline.model_name, runner=facts.name) == 1
    assert scrape("max_rows") == 8


def test_a_stage_that_is_gone_has_no_process(tmp_path):
    from pipeline.front.metrics.processes import read_process

    assert read_process(2**22 + 1) is None
