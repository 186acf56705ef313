"""What is remembered of prompts, beside a model that keeps whole prompts and a plain list of uses."""

from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from pipeline.front.delivery.routing.prefixes import (
    BLOCK_BYTES,
    ENTRY_BYTES,
    LONGEST_CHAIN,
    Chain,
    Holders,
    Prefixes,
    chain_of,
)
from tests.examples import examples

TEXT = bytes(range(256)) * 3


def matched(holders: Holders, chain: Chain, bit: int = 1) -> int:
    """How many of its first blocks the replica with this bit remembers."""
    return max((blocks for blocks, bits in holders.matches(chain) if bits & bit), default=0)


def test_chains_are_equal_as_far_as_prompts_are() -> None:
    chain, other = chain_of(TEXT), chain_of(TEXT[:200] + b"!" + TEXT[201:])
    assert len(chain) == len(TEXT) // BLOCK_BYTES
    assert [a == b for a, b in zip(chain, other, strict=True)] == [True] * 3 + [False] * 9


def test_only_full_blocks_count() -> None:
    assert len(chain_of(TEXT[:63])) == 0
    assert chain_of(TEXT[:127]) == chain_of(TEXT[:64]) == chain_of(TEXT)[:1]


def test_roots_have_nothing_in_common() -> None:
    assert not {*chain_of(TEXT)} & {*chain_of(TEXT, "adapter")}


def test_the_same_block_elsewhere_is_another() -> None:
    assert len({*chain_of(bytes(64 * 20))}) == 20


def test_a_prompt_of_any_length_has_a_bounded_chain() -> None:
    assert len(chain_of(bytes(BLOCK_BYTES * (LONGEST_CHAIN + 5)))) == LONGEST_CHAIN


def test_the_end_of_a_prompt_is_forgotten_before_its_beginning() -> None:
    holders = Holders()
    prefixes, chain = Prefixes(5, holders), chain_of(TEXT)
    prefixes.use(chain, 1)
    assert len(prefixes) == matched(holders, chain) == 5


def test_an_eviction_says_what_else_was_evicted() -> None:
    holders = Holders()
    prefixes = Prefixes(100, holders)
    chains = [chain_of(bytes([i]) * 200) for i in range(4)]
    for time, chain in enumerate(chains):
        prefixes.use(chain, time)
    prefixes.use(chains[0], 4)
    prefixes.forget_evicted(2)
    assert [matched(holders, chain) for chain in chains] == [3, 0, 0, 3]


def test_a_prompt_that_was_never_computed_is_forgotten_where_nobody_else_needs_it() -> None:
    holders = Holders()
    prefixes, short, long = Prefixes(100, holders), chain_of(TEXT[:256]), chain_of(TEXT[:512])
    prefixes.use(long, 1)
    prefixes.use(short, 2)
    prefixes.forget_unused(long, 1)
    assert matched(holders, long) == 4


def test_an_entry_takes_as_much_memory_as_is_said() -> None:
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        prefixes = Prefixes(1 << 14, Holders(), 1 << 999)
        for i in range(1 << 13):
            prefixes.use(chain_of(i.to_bytes(4) * 32), i + 1000)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(prefixes) == 1 << 14
    assert ENTRY_BYTES / 2 < (after - before) / len(prefixes) <= ENTRY_BYTES


PROMPTS = [
    bytes([a] * 64 * 2 + [b] * 64 * 2 + [c] * 64 * n) for a in (1, 2) for b in (3, 4) for c, n in ((5, 1), (6, 3))
]


Action = tuple[int, int, int]


@examples(60)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, len(PROMPTS) - 1), st.integers(0, 2)), max_size=40),
    st.integers(1, 24),
)
def test_what_is_remembered_is_a_beginning_of_each_prompt(actions: list[Action], most: int) -> None:
    """Else a search by halves would miss something. And replicas are found together as each by itself."""
    holders, time = Holders(), 0
    replicas = [Prefixes(most, holders, 1 << number) for number in range(3)]
    uses: dict[tuple[int, int], tuple[int, int]] = {}  # of a prompt: when, and how much was known before
    for kind, number, replica in actions:
        prefixes, chain = replicas[replica], chain_of(PROMPTS[number])
        if kind == 2:
            prefixes.forget_evicted(time - number)
        elif kind == 3 and (replica, number) in uses:
            last_use, known_before = uses[replica, number]
            prefixes.forget_unused(chain[known_before:], last_use)
        elif kind == 4 and number == 0:
            prefixes.clear()
        else:
            time += 1
            uses[replica, number] = time, matched(holders, chain, 1 << replica)
            prefixes.use(chain, time)
        assert len(prefixes) <= most
        for prompt in PROMPTS:
            check(holders, replicas, chain_of(prompt))


def check(holders: Holders, replicas: list[Prefixes], chain: Chain) -> None:
    for number, prefixes in enumerate(replicas):
        is_known = [block in prefixes._used for block in chain]
        assert is_known == sorted(is_known, reverse=True)
        assert matched(holders, chain, 1 << number) == sum(is_known)
    counts = [blocks for blocks, _ in holders.matches(chain)]
    assert counts == sorted(set(counts))


def test_what_nobody_remembers_takes_no_memory() -> None:
    holders = Holders()
    replicas = [Prefixes(100, holders, 1 << number) for number in range(3)]
    for prefixes in replicas:
        prefixes.use(chain_of(TEXT), 1)
    for prefixes in replicas:
        prefixes.clear()
    assert not holders._bits
