"""KV blocks: who owns them, which are shared, and which go first when room is needed."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.preprocess.blocks import ROOT, BlockManager

SIZE = 4


def tokens(count, first=0):
    return np.arange(first, first + count, dtype=np.int32)


def name(manager, ids):
    digests = []
    manager.name(ids, digests)
    return digests


def filled(manager, ids):
    """The blocks of a sequence whose full blocks may be shared."""
    digests = name(manager, ids)
    blocks = [manager.allocate() for _ in digests]
    for block, digest in zip(blocks, digests, strict=True):
        manager.seal(block, digest)
    return blocks


def test_all_but_the_block_of_padding_can_be_had_once():
    manager = BlockManager(5, SIZE)
    got = [manager.allocate() for _ in range(5)]
    assert sorted(got[:4]) == [1, 2, 3, 4]
    assert got[4] is None
    assert (manager.free, manager.used) == (0, 4)
    manager.release(got[:4])
    assert (manager.free, manager.used, manager.releases) == (4, 0, 4)


@pytest.mark.parametrize(("blocks", "size"), [(1, 4), (2, 0)])
def test_too_few_or_too_small(blocks, size):
    with pytest.raises(ValueError, match=f"not {blocks} of {size}"):
        BlockManager(blocks, size)


def test_a_name_follows_from_the_tokens_and_all_before_them():
    manager = BlockManager(5, SIZE)
    whole = name(manager, tokens(11))
    assert len(whole) == 2  # of full blocks only
    extended = whole[:1]
    manager.name(tokens(11), extended)
    assert extended == whole
    other = name(manager, np.concatenate([tokens(4, 50), tokens(4, 4)]))
    assert other[1] != whole[1]
    assert name(BlockManager(5, SIZE), tokens(11)) != whole  # nobody can know names beforehand


def test_names_of_different_roots_have_nothing_in_common():
    manager, named = BlockManager(9, SIZE), {}
    for root in (ROOT, b"1" * 32, b"2" * 32):
        manager.name(tokens(11), digests := [], root)
        named[root] = digests
    assert len({digest for digests in named.values() for digest in digests}) == 6
    assert named[ROOT] == name(manager, tokens(11))
    manager.name(tokens(11), extended := named[b"1" * 32][:1], b"1" * 32)
    assert extended == named[b"1" * 32]


def test_what_is_shared_is_free_when_the_last_one_lets_go():
    manager = BlockManager(9, SIZE)
    ids = tokens(8)
    first = filled(manager, ids)
    digests = name(manager, ids)
    assert manager.match(digests, 2) == first
    manager.release(first)
    assert manager.used == 2
    manager.release(first)
    assert (manager.used, manager.cached) == (0, 2)
    assert manager.match(digests, 1) == first[:1]  # and it can be had again, as long as it is there
    assert manager.used == 1


def test_the_end_of_what_was_used_longest_ago_goes_first():
    manager = BlockManager(5, SIZE)
    old, new = filled(manager, tokens(8)), filled(manager, tokens(8, 100))
    manager.release(old)
    manager.release(new)
    assert [manager.allocate() for _ in range(4)] == [*old[::-1], *new[::-1]]
    assert manager.cached == 0


def test_a_prefix_ends_where_a_block_is_missing():
    manager = BlockManager(9, SIZE)
    ids = tokens(12)
    digests = name(manager, ids)
    first, third = manager.allocate(), manager.allocate()
    manager.seal(first, digests[0])
    manager.seal(third, digests[2])
    assert [manager.is_cached(digest) for digest in digests] == [True, False, True]
    assert manager.match(digests, 3) == [first]


def test_the_same_content_twice_is_cached_once():
    manager = BlockManager(9, SIZE)
    first, second = filled(manager, tokens(4)), filled(manager, tokens(4))
    assert manager.match(name(manager, tokens(4)), 1) == first != second


def test_without_a_prefix_cache_nothing_has_a_name():
    manager = BlockManager(9, SIZE, prefix_cache=False)
    assert name(manager, tokens(8)) == []
    manager.seal(manager.allocate(), b"name")
    assert manager.cached == 0
