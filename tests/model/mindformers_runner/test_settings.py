"""Settings of the mindformers runner, and its buckets."""

from pathlib import Path

import pytest

from model.errors import ConfigurationError
from model.mindformers_runner import MindFormersSettings, default_buckets
from model.runner import Bucket


def shapes(buckets):
    return [(bucket.tokens, bucket.rows) for bucket in buckets]


def test_ladder():
    assert shapes(default_buckets(8, 256)) == [(1, 1), (2, 2), (4, 4), (8, 8), (16, 8), (64, 8), (256, 8)]
    assert shapes(default_buckets(1, 1)) == [(1, 1)]
    assert shapes(default_buckets(5, 100)) == [(1, 1), (2, 2), (4, 4), (5, 5), (16, 5), (64, 5), (100, 5)]


@pytest.mark.parametrize(("rows", "budget"), [(1, 7), (3, 3), (16, 17), (32, 512), (33, 4096)])
def test_every_step_has_a_bucket(rows, budget):
    buckets = default_buckets(rows, budget)
    assert list(buckets) == sorted(set(buckets), key=lambda bucket: (bucket.tokens, bucket.rows))
    assert buckets[-1] == Bucket(budget, rows)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_blocks": 0}, "num_blocks is 0; it must be a positive whole number"),
        ({"max_rows": True}, "max_rows is True"),
        ({"threads": -1}, "threads is -1"),
        ({"block_size": 24}, "block_size is 24; on CPU it must be a multiple of 16"),
        ({"device": "TPU"}, "device is 'TPU'; it must be one of CPU, Ascend"),
        ({"attention": "flash"}, "attention is 'flash'; it must be one of custom, plain"),
        ({"adapters": (Path("a"),)}, "adapters: the mindformers engine has none.*kind: mindspore.*merged_adapter"),
        ({"max_rows": 8, "token_budget": 4}, "raise token_budget to 8 or lower max_rows"),
        ({"buckets": (Bucket(2, 4),)}, "bucket of 2 tokens x 4 rows"),
        ({"buckets": (Bucket(512, 4),)}, "tokens between rows and 256"),
        ({"buckets": (Bucket(4, 4, 5),)}, "bucket of 4 tokens x 4 rows: 5 of them can't be sampled"),
    ],
)
def test_refused(changes, message):
    with pytest.raises(ConfigurationError, match=message):
        MindFormersSettings(Path("config.json"), **changes)


def test_own_buckets_must_hold_the_largest_step():
    settings = MindFormersSettings(Path("c"), max_rows=2, token_budget=32, buckets=(Bucket(1, 1),))
    with pytest.raises(ConfigurationError, match="buckets lack 32 tokens x 2 rows"):
        settings.effective_buckets()
    settings = MindFormersSettings(Path("c"), max_rows=2, token_budget=32, buckets=(Bucket(32, 2), Bucket(1, 1)))
    assert shapes(settings.effective_buckets()) == [(1, 1), (32, 2)]


def test_ascend_takes_any_block_size():
    assert MindFormersSettings(Path("c"), device="Ascend", block_size=24).block_size == 24
