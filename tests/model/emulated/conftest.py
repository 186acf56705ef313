"""A small emulated device, and a driver for it."""

from __future__ import annotations

import pytest

from model.emulated import CostModel, EmulatedRunner, EmulatedSettings
from model.runner import Bucket
from tests.model.driver import Driver

BLOCK, BLOCKS, MAX_LENGTH = 4, 64, 48
BUCKETS = tuple(Bucket(tokens, rows) for tokens, rows in ((1, 1), (4, 4), (16, 4), (32, 4)))


def make_settings(**changes) -> EmulatedSettings:
    defaults = {
        "cost": CostModel(0.0),
        "vocab_size": 500,
        "max_length": MAX_LENGTH,
        "num_blocks": BLOCKS,
        "block_size": BLOCK,
        "buckets": BUCKETS,
    }
    return EmulatedSettings(**{**defaults, **changes})


class EmulatedDriver(Driver):
    def __init__(self, settings: EmulatedSettings, seed: int = 0) -> None:
        runner = EmulatedRunner(settings)
        runner.load()
        runner.warm_up()
        super().__init__(runner, seed)
        self.settings = settings


@pytest.fixture(scope="session")
def settings():
    return make_settings


@pytest.fixture(scope="session")
def driver():
    return EmulatedDriver
