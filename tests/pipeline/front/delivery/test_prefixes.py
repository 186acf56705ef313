"""What is remembered of prompts, beside a model that keeps whole prompts and a plain list of uses."""

from __future__ import annotations

import tracemalloc

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.front.delivery.prefixes import BLOCK_BYTES, ENTRY_BYTES, LONGEST_CHAIN, Prefixes, chain_of

TEXT = bytes(range(256)) * 3


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
    prefixes, chain = Prefixes(5), chain_of(TEXT)
    prefixes.use(chain, 1)
    assert len(prefixes) == prefixes.match(chain) == 5


def test_an_eviction_says_what_else_was_evicted() -> None:
    prefixes = Prefixes(100)
    chains = [chain_of(bytes([i]) * 200) for i in range(4)]
    for time, chain in enumerate(chains):
        prefixes.use(chain, time)
    prefixes.use(chains[0], 4)
    prefixes.forget_evicted(2)
    assert [prefixes.match(chain) for chain in chains] == [3, 0, 0, 3]


def test_a_prompt_that_was_never_computed_is_forgotten_where_nobody_else_needs_it() -> None:
    prefixes, short, long = Prefixes(100), chain_of(TEXT[:256]), chain_of(TEXT[:512])
    prefixes.use(long, 1)
    prefixes.use(short, 2)
    prefixes.forget_unused(long, 1)
    assert prefixes.match(long) == 4


def test_an_entry_takes_as_much_memory_as_is_said() -> None:
    prefixes = Prefixes(1 << 14)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
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


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, len(PROMPTS) - 1)), max_size=30), st.integers(1, 24))
def test_what_is_remembered_is_a_beginning_of_each_prompt(actions: list[tuple[int, int]], most: int) -> None:
    """Else a search by halves would miss something."""
    prefixes, time = Prefixes(most), 0
    uses: dict[int, tuple[int, int]] = {}  # of a prompt: when, and how much was known before
    for kind, number in actions:
        chain = chain_of(PROMPTS[number])
        if kind == 2:
            prefixes.forget_evicted(time - number)
        elif kind == 3 and number in uses:
            last_use, known_before = uses[number]
            prefixes.forget_unused(chain[known_before:], last_use)
        else:
            time += 1
            uses[number] = time, prefixes.match(chain)
            prefixes.use(chain, time)
        assert len(prefixes) <= most
        for prompt in PROMPTS:
            chain = chain_of(prompt)
            is_known = [block in prefixes._used for block in chain]
            assert is_known == sorted(is_known, reverse=True)
            assert prefixes.match(chain) == sum(is_known)
