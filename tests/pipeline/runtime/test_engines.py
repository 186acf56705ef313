"""Which runner a configuration asks for, and the sizes that follow from it."""

from __future__ import annotations

import sys

import pytest

from model.emulated import EmulatedRunner
from model.errors import ConfigurationError
from model.layout import smallest_bucket
from model.mindformers_runner import MindFormersRunner
from model.mindspore_common.ranks import Ranks
from model.mindspore_runner import MindSporeRunner
from model.openvino import OpenVinoRunner
from model.replay import ReplayRunner
from pipeline.config import load_configuration
from pipeline.runtime.deterministic import fixed_tokens
from pipeline.runtime.engines import (
    emulated_buckets,
    make_runner,
    require_deterministic,
    sampled_positions,
    shapes_of,
)
from scripts.lab.paths import ROOT
from tests.model.conftest import needs_openvino
from tests.model.families.checkpoints import load

CHECKPOINTS = load()


@pytest.mark.parametrize(("name", "kind"), [("emulated_910b", EmulatedRunner), ("demo", MindFormersRunner)])
def test_each_configuration_has_its_runner(name, kind):
    config = load_configuration(ROOT / "configs" / f"{name}.yaml", other_host=True)
    runner = make_runner(config)
    assert isinstance(runner, kind)
    shapes = shapes_of(config, runner)
    assert shapes.max_rows == config.pipeline.max_rows
    assert shapes.token_budget >= config.pipeline.token_budget
    assert shapes.vocab_size == runner.facts.vocab_size
    assert "mindspore" not in sys.modules


def test_a_folder_on_cpu_has_the_decoder_for_all_families(monkeypatch):
    monkeypatch.setattr("model.openvino.requirements.missing_package", lambda: "openvino is not installed")
    options = ["pipeline.runner.kind=auto", "pa_config.num_blocks=64"]
    runner = make_runner(load_configuration(ROOT / "configs" / "demo.yaml", options, other_host=True))
    assert isinstance(runner, MindSporeRunner)
    assert runner.facts.name == "mindspore llama 256 x 4"
    assert "mindspore" not in sys.modules


@needs_openvino
def test_a_folder_on_cpu_has_openvino_where_it_is_installed():
    options = ["pipeline.runner={kind: auto, weight_dtype: int8, kv_dtype: u8}", "pa_config.num_blocks=64"]
    config = load_configuration(ROOT / "configs" / "demo.yaml", options, other_host=True)
    runner = make_runner(config)
    assert isinstance(runner, OpenVinoRunner)
    assert runner.facts.name == "openvino int8 llama 256 x 4"
    assert (runner.facts.num_blocks, runner.facts.block_size, runner.settings.kv_dtype) == (32, 32, "u8")
    shapes = shapes_of(config, runner)
    assert (shapes.token_budget, shapes.max_rows, shapes.samples) == (64, 8, 64)
    assert "openvino" not in sys.modules


@pytest.mark.parametrize(("name", "message"), [("qwen3-moe", ""), ("gemma2", "'gemma2': mindformers' networks lack")])
def test_a_family_on_ascend_is_served_or_refused_before_anything_starts(tmp_path, name, message):
    """The launcher makes a runner first: `auto` is mindformers there."""
    folder, file = CHECKPOINTS[name].save(tmp_path / name), tmp_path / "config.yaml"
    file.write_text(f"pipeline: {{model_dir: {folder}, runner: {{device: Ascend}}}}\n")
    config = load_configuration(file, ["pa_config.num_blocks=64"], other_host=True)
    if message:
        with pytest.raises(ConfigurationError, match=message):
            make_runner(config)
    else:
        assert make_runner(config).facts.name == "mindformers GPTModel 64 x 2"
    assert "mindspore" not in sys.modules


@pytest.mark.parametrize(("rows", "budget"), [(1, 16), (3, 100), (16, 16), (40, 8)])
def test_every_step_has_a_bucket(rows, budget):
    buckets = emulated_buckets(rows, budget)
    assert list(buckets) == sorted(set(buckets), key=lambda bucket: (bucket.tokens, bucket.rows))
    for live in range(1, rows + 1):
        for tokens in {live, max(live, budget)}:
            assert any(bucket.tokens >= tokens and bucket.rows >= live for bucket in buckets)


@pytest.mark.parametrize(("rows", "samples"), [(1, 8), (4, 32), (8, 64), (64, 64), (100, 100)])
@pytest.mark.parametrize("kind", ["emulated", "mindspore", pytest.param("openvino", marks=needs_openvino)])
def test_with_drafts_a_step_may_have_more_positions_than_rows(kind, rows, samples):
    name = "emulated_910b" if kind == "emulated" else "demo"
    options = [f"pipeline.runner.kind={kind}", "pipeline.speculation.method=ngram", f"pipeline.max_rows={rows}",
               "pipeline.token_budget=128", "pa_config.num_blocks=256"]  # fmt: skip
    config = load_configuration(ROOT / "configs" / f"{name}.yaml", options, other_host=True)
    runner = make_runner(config)
    shapes = shapes_of(config, runner)
    assert (sampled_positions(config), shapes.drafts) == (samples, 7)
    assert shapes.samples == 128  # those that may be scored
    assert shapes.logit_rows == max(rows, 8)
    buckets = runner.facts.buckets
    assert list(buckets) == sorted(set(buckets))
    for tokens in range(1, samples + 1):  # of one row, or of as many as there are
        for live in (1, min(rows, tokens)):
            assert smallest_bucket(buckets, tokens, live, tokens) is not None
    assert smallest_bucket(buckets, 128, rows, rows) is not None


def test_texts_may_be_replayed(tmp_path):
    file = tmp_path / "texts.jsonl"
    file.write_text('{"prompt": [1, 2, 3, 4, 5, 6, 7, 8], "answer": [9]}')
    config = load_configuration(ROOT / "configs" / "emulated_910b.yaml", [f"pipeline.runner.replay={file}"])
    runner = make_runner(config)
    assert isinstance(runner, ReplayRunner)
    assert runner.facts == make_runner(load_configuration(ROOT / "configs" / "emulated_910b.yaml")).facts


def test_replicas_have_devices_of_their_own_and_share_the_cpus(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {*range(10)})
    options = ["pipeline.runner.kind=mindspore", "serving_config.start_device_id=2"]
    made = [
        [make_runner(configured, replica).settings for replica in range(configured.pipeline.replicas)]
        for more in ([], ["pipeline.replicas=3"], ["pipeline.replicas=2", "pipeline.runner.threads=7"])
        for configured in [load_configuration(ROOT / "configs" / "demo.yaml", [*options, *more], other_host=True)]
    ]
    assert [[(one.device_id, one.threads) for one in runners] for runners in made] == [
        [(2, None)],
        [(2, 3), (3, 3), (4, 3)],
        [(2, 7), (3, 7)],
    ]


def test_ranks_have_devices_of_their_own_and_share_the_cpus(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {*range(10)})
    options = ["pipeline.runner.kind=mindspore", "serving_config.start_device_id=2", "pipeline.ranks=2"]
    config = load_configuration(ROOT / "configs" / "demo.yaml", [*options, "pipeline.replicas=2"], other_host=True)
    made = [make_runner(config, replica, Ranks(rank, 2)) for replica in range(2) for rank in range(2)]
    assert [one.settings.device_id for one in made] == [2, 3, 4, 5]
    assert {one.settings.threads for one in made} == {2}
    assert {one.facts for one in made} == {make_runner(config).facts}


@pytest.mark.parametrize(("kind", "tokens"), [("emulated", 8), ("mindspore", 8), ("mindformers", 0)])
def test_an_engine_is_deterministic_or_says_so_before_anything_starts(monkeypatch, kind, tokens):
    options = [f"pipeline.runner={{kind: {kind}}}", "pa_config.num_blocks=64", "pipeline.max_rows=8"]
    options += ["pipeline.runner.cost_model.fixed_ms=1"] if kind == "emulated" else []
    config = load_configuration(ROOT / "configs" / "demo.yaml", options, other_host=True)
    assert fixed_tokens(make_runner(config).facts) == tokens
    config = load_configuration(
        ROOT / "configs" / "demo.yaml", [*options, "pipeline.deterministic=true"], other_host=True
    )
    if tokens:
        runner = make_runner(config)
        monkeypatch.setattr(type(runner), "deterministic", False)
        with pytest.raises(ConfigurationError, match="deterministic is not available on this host"):
            require_deterministic(config, runner)
    else:
        with pytest.raises(ConfigurationError, match="deterministic is not available with this engine, mindformers"):
            make_runner(config)
