"""What an engine finds out about itself before it serves."""

from __future__ import annotations

import numpy as np
import pytest

from model.emulated import CostModel, EmulatedRunner, EmulatedSettings
from model.mindspore_common.first_step import places_agree
from model.runner import Bucket


class Placed(EmulatedRunner):
    """Its numbers depend on the place of a token, from the one on that is `first`."""

    first = 99

    def _advance(self, binding):
        took = super()._advance(binding)
        binding.hashes[self.first :] += np.uint64(1)
        return took


@pytest.mark.parametrize(("tokens", "rows", "blocks"), [(4, 4, 64), (16, 4, 64), (16, 4, 3), (7, 3, 64)])
def test_every_place_is_looked_at(tokens, rows, blocks):
    bucket = Bucket(tokens, rows)
    sizes = {"vocab_size": 300, "max_length": 64, "num_blocks": blocks, "block_size": 16}
    runner = Placed(EmulatedSettings(cost=CostModel(fixed_ms=0.0), buckets=(bucket,), **sizes))
    runner.load()
    assert places_agree(runner, bucket)
    used = min(rows, blocks)
    for runner.first in range(tokens // used, tokens // used * used):
        assert not places_agree(runner, bucket)
