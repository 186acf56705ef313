"""Both ends of a control channel."""

from __future__ import annotations

import pytest

from pipeline.runtime.control_channel import Channel


@pytest.fixture
def ends():
    ours, theirs = Channel.pair()
    stage = Channel(theirs)
    yield ours, stage
    ours.close()
    stage.close()
