"""Configurations as flat values, and the settings among them that may change."""

from __future__ import annotations

import pytest

from pipeline.config import live_keys, load_configuration, values_of, with_values
from scripts.lab.paths import ROOT


@pytest.fixture(scope="module")
def config():
    return load_configuration(ROOT / "configs" / "emulated_910b.yaml", other_host=True)


def test_values_go_in_as_they_came_out(config):
    values = values_of(config)
    assert values["pipeline.max_queue"] == config.pipeline.max_queue
    assert with_values(config, values) == config


def test_only_the_named_keys_change(config):
    changed = with_values(config, {"pipeline.max_queue": 7, "pipeline.log.level": "debug"})
    assert (changed.pipeline.max_queue, changed.pipeline.log.level) == (7, "debug")
    old, new = values_of(config), values_of(changed)
    assert {key for key in old if old[key] != new[key]} == {"pipeline.max_queue", "pipeline.log.level"}


def test_what_sizes_memory_can_not_change_while_it_runs(config):
    live = live_keys()
    assert live < values_of(config).keys()
    assert "pipeline.max_queue" in live
    assert not live & {"pipeline.max_rows", "pipeline.token_budget", "serving_config.server_port"}
