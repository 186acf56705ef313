"""Rings of one generation after the other: made before they are needed, and gone when they are left."""

from __future__ import annotations

import os

import pytest

import ipc
from pipeline.config import load_configuration
from pipeline.launcher.rings import Rings
from pipeline.runtime.engines import make_runner, shapes_of
from pipeline.wire.topology import ONE_OF_EACH
from scripts.lab.paths import ROOT


@pytest.fixture
def rings():
    overrides = ["pipeline.max_rows=2", "pipeline.token_budget=16", "pa_config.num_blocks=300"]
    config = load_configuration(ROOT / "configs" / "emulated_910b.yaml", overrides, other_host=True)
    rings = Rings(ONE_OF_EACH, 0, config, shapes_of(config, make_runner(config)))
    yield rings
    rings.close()


def test_each_generation_has_rings_of_its_own_and_the_last_ones_end(rings):
    assert (rings.current, rings.number) == (None, 0)
    first = rings.begin()
    assert (rings.current, rings.number) == (first, 1)
    consumer = first.rings["results"].consumer()
    rings.end()
    assert rings.current is None
    with pytest.raises(ipc.RingClosed):
        consumer.read(timeout=10)
    consumer.close()
    second = rings.begin()
    assert second is not first
    assert rings.number == 2


def test_an_end_is_told_once(rings):
    told = []
    rings.on_end = told.append
    rings.end()
    rings.begin()
    rings.end()
    rings.end()
    assert told == [1]


def test_none_has_a_name_that_others_could_open(rings):
    rings.begin()
    assert not [path for path in ipc.SHM_DIRECTORY.iterdir() if f"-{os.getpid()}-" in path.name]


def test_to_end_twice_is_harmless(rings):
    rings.begin()
    rings.end()
    rings.end()
    rings.close()
    rings.close()
