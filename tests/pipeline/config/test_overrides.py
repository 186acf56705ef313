"""Overrides of single keys."""

from __future__ import annotations

import pytest

from pipeline.config import load_configuration
from tests.pipeline.config.helpers import EMULATED, MODEL, the_problem


def test_overrides_win_and_the_last_one_most(write):
    path = write("serving_config: {server_port: 1}\n" + MODEL)
    overrides = ["serving_config.server_port=2", "serving_config.server_port=0", "pipeline.log={level: error}"]
    configuration = load_configuration(path, overrides)
    assert configuration.serving_config.server_port == 0
    assert configuration.pipeline.log.level == "error"


def test_an_override_reaches_into_a_free_mapping(write):
    configuration = load_configuration(write(EMULATED), ["pipeline.runner.cost_model.fixed_ms=1.5"])
    assert configuration.pipeline.runner.cost_model == {"fixed_ms": 1.5, "per_row_ms": 0.1}


def test_paths_in_overrides_are_relative_to_the_working_directory(write, tmp_path, monkeypatch):
    path = write("", name="empty.yaml")
    monkeypatch.chdir(tmp_path / "model")
    configuration = load_configuration(path, ["pipeline.model_dir=."])
    assert configuration.pipeline.model_dir == tmp_path / "model"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("serving_config.server_port", "expected section.key=value"),
        ("=3", "expected section.key=value"),
        ("serving_config..server_port=3", "expected section.key=value"),
        ("serving_config.server_port=many", "'many'; expected a whole number from 0 to 65535"),
        ("serving_config.sever_port=3", "did you mean serving_config.server_port?"),
        ("serving_config.server_port.x=3", "has no keys"),
        ("pipeline.hosts=[a", "not usable YAML"),
    ],
)
def test_a_wrong_override_is_named(write, override, expected):
    path = write("serving_config:\n  server_port: 1\n" + MODEL)
    problem = the_problem(path, [override])
    assert str(problem).startswith(f"--set {override}: ")
    assert expected in problem.message
