"""Which buckets there are, which come first, and which one a step is padded to."""

import pytest

from model.layout import (
    compile_order,
    first_buckets,
    fixed_bucket,
    make_buckets,
    scored_samples,
    smallest_bucket,
    with_samples,
)
from model.runner import Bucket

MADE = make_buckets(16, 256, 4)


def test_what_serves_every_step_is_first_then_prompts_then_what_saves_padding():
    assert first_buckets(MADE) == (Bucket(1, 1), Bucket(16, 16))
    assert compile_order(MADE) == tuple(
        Bucket(*size) for size in [(1, 1), (16, 16), (64, 16), (256, 16), (2, 2), (4, 4), (8, 8)]
    )


@pytest.mark.parametrize(
    ("buckets", "first"),
    [
        ([Bucket(4, 4)], [Bucket(4, 4)]),
        ([Bucket(1, 1), Bucket(3, 3), Bucket(40, 3)], [Bucket(1, 1), Bucket(3, 3)]),
        ([Bucket(4, 4), Bucket(8, 4, 8), Bucket(16, 4, 8)], [Bucket(4, 4)]),
        # a step of many rows and one of many sampled positions: no bucket holds both
        ([Bucket(8, 2, 8), Bucket(8, 8, 1)], [Bucket(8, 2, 8), Bucket(8, 8, 1)]),
    ],
)
def test_first_buckets(buckets, first):
    assert list(first_buckets(buckets)) == first
    assert sorted(compile_order(buckets)) == sorted(buckets)


@pytest.mark.parametrize(
    ("buckets", "fixed"),
    [
        (MADE, Bucket(16, 16)),
        (with_samples(make_buckets(3, 40, 4, 12), 20), Bucket(3, 3)),
        ([Bucket(8, 2, 8), Bucket(8, 8, 1)], None),
    ],
)
def test_the_fixed_one_is_always_compiled(buckets, fixed):
    assert fixed_bucket(buckets) == fixed
    assert fixed is None or fixed in first_buckets(buckets)


def test_prompts_are_scored_in_a_bucket_of_their_own_which_comes_last():
    buckets = with_samples(MADE, 64)
    assert buckets == (*MADE, Bucket(256, 16, 64))
    assert buckets == tuple(sorted(buckets))
    assert first_buckets(buckets) == first_buckets(MADE)
    assert compile_order(buckets) == (*compile_order(MADE), Bucket(256, 16, 64))
    assert with_samples(MADE, 16) == MADE


@pytest.mark.parametrize(("budget", "rows", "vocabulary", "samples"), [
    (64, 8, 2048, 64), (512, 8, 32_000, 256), (512, 8, 128_256, 65), (512, 128, 128_256, 128), (64, 64, 32_000, 64),
])  # fmt: skip
def test_how_many_positions_are_scored_in_a_step(budget, rows, vocabulary, samples):
    assert scored_samples(budget, rows, vocabulary) == samples


def test_smallest_bucket():
    assert smallest_bucket(MADE, 3, 3, 3) == Bucket(4, 4)
    assert smallest_bucket(MADE, 17, 2, 1) == Bucket(64, 16)
    assert smallest_bucket(MADE, 257, 1, 1) is None
