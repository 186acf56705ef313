"""The fault harness at CI's scale, and that it notices what it is there for."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest

from model.demo import DEMO_DIR
from pipeline.wire.topology import STAGES
from scripts.verify import chaos
from scripts.verify.survival.faults import deal
from scripts.verify.survival.load import Tally, jobs
from scripts.verify.survival.ordeal import Ordeal, run
from scripts.verify.survival.session import EMULATED
from scripts.verify.survival.streams import Job, Stream
from tests.model.conftest import needs_openvino

KINDS = 2 * len(STAGES) + 3


@pytest.mark.timeout(600)
def test_every_kind_of_fault_under_thirty_two_streams(capsys):
    """kill -9 and SIGSTOP of each stage and of several at once: no token lost, none doubled, nothing left."""
    report = run(Ordeal(EMULATED, chaos.DEFAULTS, rounds=KINDS, tokens=200, seed=random.randrange(1000)))
    chaos.show(report)
    told = capsys.readouterr().out
    assert not report.wrong, told
    assert not report.tally.wrong, told
    assert (report.rounds, report.tally.lost, report.tally.doubled) == (KINDS, 0, 0)
    assert report.tally.streams >= 32
    assert report.tally.returns >= 32
    assert report.tally.cut_off == 0
    assert report.fronts_s
    assert report.restarts >= KINDS
    assert len(report.resumed_s) >= 6


@needs_openvino
@pytest.mark.timeout(300)
def test_a_model_whose_numbers_depend_on_how_a_token_is_computed(capsys):
    """int8 on OpenVINO rounds activations: texts that are resumed, or preempted for want of blocks, stay the same."""
    sets = ("kind=openvino", "weight_dtype=int8")
    few = ("pa_config.num_blocks=24", "pipeline.max_rows=8", "pipeline.hang_timeout_s=3")
    overrides = (*few, *(f"pipeline.runner.{one}" for one in sets))
    report = run(Ordeal(Path(DEMO_DIR), overrides, rounds=2, tokens=110, stages=("inference",), streams=8))
    chaos.show(report)
    assert not report.tally.wrong, capsys.readouterr().out
    assert report.restarts >= 2
    assert report.tally.streams >= 8


def test_faults_are_dealt_fairly():
    hand = deal(STAGES, random.Random(3))
    dealt = [next(hand) for _ in range(2 * KINDS)]
    for half in (dealt[:KINDS], dealt[KINDS:]):
        assert len({fault.name for fault in half}) == KINDS
        assert all(len(fault.signals) > 1 for fault in half if "several" in fault.name or "another" in fault.name)
    single = deal(["sampling"], random.Random(3))
    assert {next(single).name for _ in range(4)} == {"kill sampling", "stop sampling"}
    assert {number for fault in dealt for number in fault.signals.values()} == {signal.SIGKILL, signal.SIGSTOP}


def test_weights_are_changed_alone_and_while_a_stage_is_killed():
    hand = deal(STAGES, random.Random(3), weights=True)
    dealt = [next(hand) for _ in range(KINDS + 3)]
    changing = [fault for fault in dealt if fault.weights]
    assert len(changing) == 3
    assert sorted(len(fault.signals) for fault in changing) == [0, 1, 1]


def test_work_is_mixed():
    work = jobs(32, 100)
    assert {job.path for job in work} == {"/models/llama2/generate_stream", "/v1/completions"}
    seeds = [job.body.get("seed", job.body.get("parameters", {}).get("seed")) for job in work]
    assert len({seed for seed in seeds if seed is not None}) >= 10
    assert seeds.count(None) >= 20


def stream_of(texts, reason="length", error=""):
    return Stream(tokens=[(text, None) for text in texts], reason=reason, error=error)


@pytest.mark.parametrize(
    ("got", "lost", "doubled"),
    [("abcdef", 0, 0), ("abdef", 1, 0), ("abccdef", 0, 1), ("abcd", 2, 0), ("abxdef", 1, 1)],
)
def test_tokens_are_compared_one_by_one(got, lost, doubled):
    tally, job = Tally(), Job.completion("x", 6)
    tally.complete(job, stream_of(got), stream_of("abcdef").tokens)
    assert (tally.lost, tally.doubled, len(tally.wrong)) == (lost, doubled, int(lost + doubled > 0))


def test_streams_that_end_without_a_reason_or_with_an_error_are_wrong():
    for stream in (stream_of("ab", reason=None), stream_of("ab", error="the request was lost")):
        tally = Tally()
        tally.complete(Job.completion("x", 2), stream, stream_of("ab").tokens)
        assert len(tally.wrong) == 1


def test_a_stream_that_was_cut_off_is_compared_as_far_as_it_came():
    tally, job = Tally(), Job.llm_serving("x", 6)
    tally.partial(job, stream_of("abc"), stream_of("abcdef").tokens)
    assert not tally.wrong
    tally.partial(job, stream_of("abd"), stream_of("abcdef").tokens)
    assert len(tally.wrong) == 1


@pytest.mark.parametrize("arguments", [["--stages", "kitchen"], ["--rounds", "x"]])
def test_wrong_arguments_are_named(arguments, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["chaos.py", *arguments])
    with pytest.raises(SystemExit):
        chaos.arguments()
    assert arguments[0] in capsys.readouterr().err
